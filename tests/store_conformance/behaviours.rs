//! What every store must do. Each function gets an empty store (or one where the others ran before: names differ).

use std::collections::BTreeSet;

use binvault::clock;
use binvault::store::{Key, LIST_PAGE_MAX, ListDepth, Put, Store, StoreErrorKind, get_all, get_known, list_collect};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};

fn key(name: &str) -> Key {
    Key::new(name).unwrap()
}

/// Bytes that do not repeat soon, and differ by `seed`.
fn bytes(size: usize, seed: u8) -> Bytes {
    let mut state = u32::from(seed) + 1;
    (0..size)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            u8::try_from(state >> 24).unwrap()
        })
        .collect()
}

async fn put_all(store: &dyn Store, names: &[String]) {
    let puts = names.iter().map(|name| async move { store.put_new(&key(name), Bytes::from(name.clone())).await });
    let done: Vec<Put> = stream::iter(puts).buffer_unordered(16).try_collect().await.unwrap();
    assert_eq!(done.len(), names.len());
}

pub(crate) async fn a_name_is_given_once(store: &dyn Store) {
    let name = key("once/a");
    store.put_new(&name, bytes(100, 1)).await.unwrap();
    assert_eq!(store.put_new(&name, bytes(100, 2)).await.unwrap(), Put::AlreadyThere);
    assert_eq!(get_all(store, &name, 100).await.unwrap(), bytes(100, 1), "the object was changed");
}

pub(crate) async fn of_many_writers_one_wins(store: &dyn Store) {
    for round in 0..5_u8 {
        let name = key(&format!("race/{round}"));
        let bodies: Vec<Bytes> = (0..8).map(|writer| bytes(50_000, writer)).collect();
        let puts = bodies.iter().map(|body| store.put_new(&name, body.clone()));
        let results = futures_util::future::try_join_all(puts).await.unwrap();
        let created: Vec<usize> =
            results.iter().enumerate().filter(|(_, put)| **put == Put::Created).map(|(writer, _)| writer).collect();
        let stored = get_all(store, &name, 50_000).await.unwrap();
        let winner = bodies.iter().position(|body| *body == stored).expect("the object is nobody's");
        // Where an answer was lost, nobody is told that it was he who wrote the object; never are two.
        assert!(created.is_empty() || created == [winner], "{created:?} were told to have won, {winner} did");
    }
}

pub(crate) async fn bytes_come_back_as_they_were(store: &dyn Store) {
    for size in [0, 1, 64 << 10, 9 << 20] {
        let name = key(&format!("sizes/{size}"));
        let body = bytes(size, 3);
        store.put_new(&name, body.clone()).await.unwrap();
        assert_eq!(get_all(store, &name, size as u64).await.unwrap(), body, "{size} bytes");
        let meta = store.head(&name).await.unwrap();
        assert_eq!(meta.size, size as u64);
        assert_eq!(get_known(store, &meta, size as u64).await.unwrap(), body, "{size} bytes");
    }
}

pub(crate) async fn ranges_end_where_the_object_ends(store: &dyn Store) {
    let (name, body) = (key("ranges/a"), bytes(1000, 4));
    store.put_new(&name, body.clone()).await.unwrap();
    let cases = [(0, 0), (0, 1), (0, 1000), (0, 1001), (1, 10), (999, 1), (999, 9), (500, 500), (1000, 1), (5000, 5)];
    for (start, length) in cases {
        let got = store.get_range(&name, start, length).await.unwrap();
        let end = (start + length).min(1000);
        let expected =
            if start >= 1000 { &[][..] } else { &body[usize::try_from(start).unwrap()..usize::try_from(end).unwrap()] };
        assert_eq!(got, expected, "{length} bytes from {start}");
    }
    assert_eq!(store.get_range(&name, 7, u64::MAX).await.unwrap(), body[7..]);

    let empty = key("ranges/empty");
    store.put_new(&empty, Bytes::new()).await.unwrap();
    assert!(store.get_range(&empty, 0, 10).await.unwrap().is_empty());
}

pub(crate) async fn what_is_not_there_is_not_found(store: &dyn Store) {
    store.put_new(&key("there/a"), bytes(1, 1)).await.unwrap();
    for name in ["there/b", "there", "there/a/b", "elsewhere/c"] {
        let name = key(name);
        assert_eq!(store.head(&name).await.unwrap_err().kind, StoreErrorKind::NotFound, "{name}");
        for length in [0, 10] {
            let error = store.get_range(&name, 0, length).await.unwrap_err();
            assert_eq!(error.kind, StoreErrorKind::NotFound, "{name}");
        }
    }
    let nothing = list_collect(store, "elsewhere/", ListDepth::Everything, 10).await.unwrap();
    assert_eq!(nothing, binvault::store::Listing::default());
}

/// 1,200 objects and 1,300 folders of one object each.
async fn many(store: &dyn Store, prefix: &str) -> (Vec<String>, Vec<String>) {
    let objects: Vec<String> = (0..1200).map(|n| format!("{prefix}/k{n:04}")).collect();
    let folders: Vec<String> = (0..1300).map(|n| format!("{prefix}/k{n:04}-folder/")).collect();
    let mut names = objects.clone();
    names.extend(folders.iter().map(|folder| format!("{folder}x")));
    put_all(store, &names).await;
    (objects, folders)
}

pub(crate) async fn a_listing_has_every_object_in_order(store: &dyn Store) {
    let (objects, folders) = many(store, "everything").await;
    let mut expected: Vec<String> = folders.iter().map(|folder| format!("{folder}x")).collect();
    expected.extend(objects);
    expected.sort();

    let (mut listed, mut after, mut pages) = (Vec::new(), None::<String>, 0);
    loop {
        let page = store.list_page("everything/", ListDepth::Everything, after.as_deref()).await.unwrap();
        assert!(page.objects.len() <= LIST_PAGE_MAX && page.folders.is_empty());
        listed.extend(page.objects.into_iter().map(|object| object.key.to_string()));
        pages += 1;
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(pages, 3);
    assert!(listed == expected, "the listing differs: {} of {} names", listed.len(), expected.len());
}

pub(crate) async fn a_listing_by_level_has_every_folder_in_order(store: &dyn Store) {
    let (objects, folders) = many(store, "level").await;
    let listing = list_collect(store, "level/", ListDepth::OneLevel, 2500).await.unwrap();
    let names: Vec<String> = listing.objects.iter().map(|object| object.key.to_string()).collect();
    assert!(names == objects, "the objects differ: {} of {}", names.len(), objects.len());
    assert!(listing.folders == folders, "the folders differ: {} of {}", listing.folders.len(), folders.len());
    let top = list_collect(store, "", ListDepth::OneLevel, 100).await.unwrap();
    assert!(top.folders.contains(&"level/".to_owned()), "{:?}", top.folders);
}

pub(crate) async fn a_listing_is_of_the_prefix_alone(store: &dyn Store) {
    let names = ["near/a.b", "near/a/c", "near/a0", "near/a/d/e", "nearby/x", "nea/y"];
    put_all(store, &names.map(str::to_owned)).await;
    let names = |listing: &binvault::store::Listing| -> Vec<String> {
        listing.objects.iter().map(|object| object.key.to_string()).collect()
    };
    // `.` sorts before `/`, `/` before `0`: by the bytes of the whole name.
    let everything = list_collect(store, "near/", ListDepth::Everything, 10).await.unwrap();
    assert_eq!(names(&everything), ["near/a.b", "near/a/c", "near/a/d/e", "near/a0"]);
    let level = list_collect(store, "near/", ListDepth::OneLevel, 10).await.unwrap();
    assert_eq!((names(&level), level.folders), (vec!["near/a.b".into(), "near/a0".into()], vec!["near/a/".to_owned()]));
    let deeper = list_collect(store, "near/a/", ListDepth::OneLevel, 10).await.unwrap();
    assert_eq!((names(&deeper), deeper.folders), (vec!["near/a/c".into()], vec!["near/a/d/".to_owned()]));
}

pub(crate) async fn unusual_names_are_kept(store: &dyn Store) {
    let long = format!("odd/{}.zst.age", "0123456789abcdef-".repeat(14));
    let names = [
        "odd/a.b-c_d~e",
        "odd/user@host",
        "odd/a+b c=d",
        "odd/%41%2F",
        "odd/ leading and trailing ",
        "odd/(a)'b!c*d",
        "odd/a&b;c,d$e",
        "odd/ünïcödé-漢字-🦀",
        "odd/..a",
        "odd/a#b?c",
        "odd/\"quoted\" <x>",
        &long,
    ];
    put_all(store, &names.map(str::to_owned)).await;
    let listed = list_collect(store, "odd/", ListDepth::Everything, 100).await.unwrap();
    let listed: BTreeSet<String> = listed.objects.iter().map(|object| object.key.to_string()).collect();
    assert_eq!(listed, names.iter().map(|&name| name.to_owned()).collect());
    for name in names {
        assert_eq!(get_all(store, &key(name), 1000).await.unwrap(), name);
        store.delete(&key(name)).await.unwrap();
    }
    let left = list_collect(store, "odd/", ListDepth::Everything, 100).await.unwrap();
    assert_eq!(left.objects, []);
}

pub(crate) async fn removing_twice_is_no_error(store: &dyn Store) {
    let name = key("remove/deep/a");
    store.put_new(&name, bytes(10, 1)).await.unwrap();
    store.delete(&name).await.unwrap();
    store.delete(&name).await.unwrap();
    store.delete(&key("never/was")).await.unwrap();
    assert!(store.head(&name).await.unwrap_err().is_not_found());
    let folders = list_collect(store, "remove/", ListDepth::OneLevel, 10).await.unwrap().folders;
    assert_eq!(folders, Vec::<String>::new(), "a folder without objects is seen");
    store.put_new(&name, bytes(20, 2)).await.unwrap();
    assert_eq!(get_all(store, &name, 20).await.unwrap(), bytes(20, 2));
}

pub(crate) async fn a_beacon_is_replaced(store: &dyn Store) {
    let name = key("agents/one.json");
    for (size, seed) in [(100, 1), (10, 2), (1000, 3)] {
        store.put_over(&name, bytes(size, seed)).await.unwrap();
        assert_eq!(get_all(store, &name, 1000).await.unwrap(), bytes(size, seed));
    }
}

pub(crate) async fn sizes_and_times_are_told(store: &dyn Store) {
    let name = key("meta/a");
    store.put_new(&name, bytes(12_345, 1)).await.unwrap();
    let listed = list_collect(store, "meta/", ListDepth::Everything, 10).await.unwrap().objects;
    let head = store.head(&name).await.unwrap();
    let now_us = clock::now_us();
    for meta in [&listed[0], &head] {
        assert_eq!((&meta.key, meta.size), (&name, 12_345));
        let age_us = now_us.abs_diff(meta.modified_us.unwrap());
        assert!(age_us < 3600 * 1_000_000, "the object is {age_us} us old");
    }
}

pub(crate) async fn a_sweep_takes_no_object(store: &dyn Store) {
    let name = key("swept/a");
    store.put_new(&name, bytes(10, 1)).await.unwrap();
    assert_eq!(store.sweep(0).await.unwrap(), 0);
    assert_eq!(get_all(store, &name, 10).await.unwrap(), bytes(10, 1));
}

pub(crate) async fn limits_of_helpers_hold(store: &dyn Store) {
    put_all(store, &["limits/a".to_owned(), "limits/b".to_owned()]).await;
    assert_eq!(get_all(store, &key("limits/a"), 7).await.unwrap_err().kind, StoreErrorKind::Corrupt);
    assert_eq!(list_collect(store, "limits/", ListDepth::Everything, 2).await.unwrap().objects.len(), 2);
    assert!(list_collect(store, "limits/", ListDepth::Everything, 1).await.is_err());
}

/// Removes what the behaviours left in a store that is not thrown away.
pub(crate) async fn clean(store: &dyn Store) {
    let all = list_collect(store, "", ListDepth::Everything, 20_000).await.unwrap().objects;
    let removals = all.iter().map(|object| store.delete(&object.key));
    stream::iter(removals).buffer_unordered(16).try_collect::<Vec<()>>().await.unwrap();
}
