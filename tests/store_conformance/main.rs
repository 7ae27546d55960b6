//! What every store must do, one behaviour a test, run against every store there is.
//!
//! `behaviours.rs` says what; this file says for which stores: memory, a folder, S3 (a server that the test starts
//! itself), and a folder behind faults and retries. `trouble.rs` holds what goes wrong in a way of its own kind.
//!
//! Any other S3 store takes part when the environment names it ([`server::Named`]); objects are written under a prefix of
//! their own and removed again.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test ends by panicking")]

mod behaviours;
mod fixture;
#[path = "../support/s3.rs"]
mod server;
mod trouble;

macro_rules! conformance {
    ($($behaviour:ident),* $(,)?) => {
        conformance!(@store memory, $($behaviour),*);
        conformance!(@store disk, $($behaviour),*);
        conformance!(@store s3, $($behaviour),*);
        conformance!(@store disk_behind_faults, $($behaviour),*);

        /// One test, because one store that the environment does not name is one thing not to be tested.
        #[tokio::test(flavor = "multi_thread")]
        async fn the_store_that_the_environment_names() {
            let Some(fixture) = crate::fixture::from_environment().await else { return };
            $(
                eprintln_behaviour(stringify!($behaviour));
                crate::behaviours::$behaviour(&*fixture.store).await;
            )*
            crate::behaviours::clean(&*fixture.store).await;
        }
    };
    (@store $store:ident, $($behaviour:ident),*) => {
        mod $store {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $behaviour() {
                    let fixture = crate::fixture::$store().await;
                    crate::behaviours::$behaviour(&*fixture.store).await;
                }
            )*
        }
    };
}

#[allow(clippy::print_stderr, reason = "says which behaviour a foreign store fails")]
fn eprintln_behaviour(name: &str) {
    eprintln!("behaviour: {name}");
}

conformance!(
    a_name_is_given_once,
    of_many_writers_one_wins,
    bytes_come_back_as_they_were,
    ranges_end_where_the_object_ends,
    what_is_not_there_is_not_found,
    a_listing_has_every_object_in_order,
    a_listing_by_level_has_every_folder_in_order,
    a_listing_is_of_the_prefix_alone,
    unusual_names_are_kept,
    removing_twice_is_no_error,
    a_beacon_is_replaced,
    sizes_and_times_are_told,
    a_sweep_takes_no_object,
    limits_of_helpers_hold,
);
