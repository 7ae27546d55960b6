#!/bin/bash
# Run once by the MySQL image, on an empty data directory: the agent's account. Sourced or executed, as the image likes.
password=$(cat /run/secrets/mysql_password)
mysql --protocol=socket -uroot -p"$(cat /run/secrets/mysql_root_password)" <<SQL
CREATE USER 'binvault'@'%' IDENTIFIED BY '${password//\'/\'\'}' REQUIRE SSL;
GRANT REPLICATION SLAVE, REPLICATION CLIENT, BACKUP_ADMIN ON *.* TO 'binvault'@'%';
SQL
