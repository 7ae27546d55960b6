//! Restores that begin with a clone: files that a donor gave away under load, made into a data directory, recovered, replayed,
//! and held against what stock `mysqlbinlog | mysql` makes of the donor's own binlog.

mod interrupt;
mod load;
mod refuse;
mod rounds;
mod scene;
