//! The damage matrix: whatever is done to stored objects, `verify` and `restore`
//! say what is wrong, exit with the code for it, and write nothing.
//!
//! Fernet catches what is done within a token. Deleted, reordered, repeated and
//! foreign tokens are intact by themselves: gzip, the end of the archive and the
//! manifest have to catch them.
#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

mod support;

use std::collections::BTreeMap;
use std::fs;

use support::{World, ran};

/// Stored objects by name.
type Objects = BTreeMap<String, Vec<u8>>;

const OTHER_KEY: &str = "HxAREhMUFRYXGBkaGxwdHh8AAQIDBAUGBwgJCgsMDQ4=";

// What the cells expect, but for the `error: <name>: ` before it.
const EMPTY: &str = "the object is empty";
const NO_TOKEN: &str = "the object does not begin with a Fernet token: it is damaged, or not a snapshot";
const FIRST: &str = "the key 4405f0eb does not open this snapshot, or its first token is damaged";
const SECOND: &str = "token 2 is damaged: its authentication fails";
const THIRD: &str = "token 3 is damaged: its authentication fails";
const GZIP: &str = "the archive is damaged or cut short: ";
const AFTER_END: &str = "there is data after the end of the archive";

/// A snapshot, an older one of the same system, and their names.
struct Pair {
    world: World,
    name: String,
    now: Objects,
    old: Objects,
}

impl Pair {
    /// Of three tokens when there are 9 MiB, as large as the format allows and
    /// earlier versions wrote them: of each kind of token there is one.
    ///
    /// Of files that differ in their bytes but not in their sizes, so that a
    /// token of one fits into the other's place as well as one ever can.
    fn of(noise_bytes: usize) -> Self {
        let world = World::new();
        let mut taken = Vec::new();
        for seed in [1, 2] {
            world.write("sys/data/noise", &noise(seed, noise_bytes));
            let name = world.backup()["snapshot"].as_str().unwrap().to_owned();
            let bytes = fs::read(world.path("dest").join(&name)).unwrap();
            fs::remove_dir_all(world.path("dest/test")).unwrap();
            taken.push((name, in_large_tokens(&bytes)));
        }
        let (name, bytes) = taken.pop().unwrap();
        Self { world, now: Objects::from([(name.clone(), bytes)]), old: taken.into_iter().collect(), name }
    }

    /// The same in parts of one token each.
    fn in_parts(mut self) -> Self {
        for objects in [&mut self.now, &mut self.old] {
            let (name, bytes) = objects.pop_first().unwrap();
            let tokens = tokens(&bytes);
            for (at, token) in tokens.iter().enumerate() {
                let mut part = token.clone();
                if at + 1 < tokens.len() {
                    part.push(b'\n');
                }
                objects.insert(format!("{name}.{}-of-{}", at + 1, tokens.len()), part);
            }
        }
        self
    }

    fn whole(&self) -> &[u8] {
        &self.now[&self.name]
    }

    fn part(&self, k: usize) -> (String, Vec<u8>) {
        let name = format!("{}.{k}-of-3", self.name);
        let bytes = self.now[&name].clone();
        (name, bytes)
    }

    /// The snapshot with other tokens.
    fn with_tokens(&self, tokens: &[&[u8]]) -> Objects {
        Objects::from([(self.name.clone(), tokens.join(&b'\n'))])
    }

    /// The snapshot with other contents for some parts; none for a missing part.
    fn with_parts(&self, changed: &[(usize, Option<Vec<u8>>)]) -> Objects {
        let mut objects = self.now.clone();
        for (k, bytes) in changed {
            match bytes {
                Some(bytes) => objects.insert(self.part(*k).0, bytes.clone()),
                None => objects.remove(&self.part(*k).0),
            };
        }
        objects
    }

    /// Stores `objects`, and sees `verify` and `restore` fail with `expected`.
    #[track_caller]
    fn assert_refused(&self, cell: &str, key: &str, objects: &Objects, code: i32, expected: &str) {
        let dest = self.world.path("dest");
        fs::remove_dir_all(&dest).unwrap();
        fs::create_dir(&dest).unwrap();
        for (name, bytes) in objects {
            self.world.write(&format!("dest/{name}"), bytes);
        }
        let is_there = objects.keys().any(|name| name.starts_with(&self.name));
        let name = if is_there { Some(&self.name) } else { objects.keys().next() };
        let name = name.unwrap_or(&self.name).split(".1-of-").next().unwrap();
        let place = self.world.path("place");
        fs::create_dir(&place).unwrap();
        let target = place.join("target");
        for args in [&["verify", name][..], &["restore", name, "--target", target.to_str().unwrap()]] {
            let mut command = self.world.command(args);
            command.env("AITHER_MASTER_KEY", key);
            let ran = ran(command);
            let error = ran.stderr.lines().find(|line| line.starts_with("error: ")).unwrap_or(&ran.stderr);
            let at = error.find(expected);
            assert!(at.is_some(), "{cell}: {} says `{error}` and not `{expected}`", args[0]);
            assert_eq!(ran.code, code, "{cell}: {}: {error}", args[0]);
            assert!(ran.stderr.contains("\nhint: "), "{cell}: no hint: {}", ran.stderr);
        }
        let left: Vec<_> = fs::read_dir(&place).unwrap().flatten().map(|e| e.path()).collect();
        assert!(left.is_empty(), "{cell}: restore left {left:?}");
        fs::remove_dir(&place).unwrap();
        self.world.assert_no_leftovers();
    }

    #[track_caller]
    fn assert_all_refused(&self, cells: &[(&str, Objects, &str)]) {
        for (cell, objects, expected) in cells {
            assert_ne!(*objects, self.now, "{cell}: nothing is damaged");
            self.assert_refused(cell, support::KEY, objects, 5, expected);
        }
    }
}

/// Bytes that do not compress.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed;
    let mut bytes = vec![0; len];
    for word in bytes.chunks_exact_mut(8) {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word.copy_from_slice(&(mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb).to_le_bytes());
    }
    bytes
}

/// The same snapshot with 4 MiB in every token but the last.
fn in_large_tokens(bytes: &[u8]) -> Vec<u8> {
    let fernet = fernet::Fernet::new(support::KEY).unwrap();
    let open = |token: Vec<u8>| fernet.decrypt(std::str::from_utf8(token.trim_ascii()).unwrap()).unwrap();
    let plain: Vec<u8> = tokens(bytes).into_iter().flat_map(open).collect();
    let sealed: Vec<String> = plain.chunks(4 << 20).map(|block| fernet.encrypt(block)).collect();
    sealed.join("\n").into_bytes()
}

fn tokens(bytes: &[u8]) -> Vec<Vec<u8>> {
    bytes.split(|b| *b == b'\n').map(<[u8]>::to_vec).collect()
}

fn flipped(bytes: &[u8], at: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at] ^= 1;
    bytes
}

fn truncated(bytes: &[u8], len: usize) -> Vec<u8> {
    bytes[..len].to_vec()
}

/// The snapshot at hand in place of another one.
fn replayed(name: &str, stored: &str) -> String {
    format!("this is the snapshot {name}, stored under the name {stored}")
}

#[test]
fn an_undamaged_pair_verifies() {
    for pair in [Pair::of(0), Pair::of(9 << 20), Pair::of(9 << 20).in_parts()] {
        for (name, bytes) in pair.now.iter().chain(&pair.old) {
            pair.world.write(&format!("dest/{name}"), bytes);
        }
        for name in [&pair.name, pair.old.keys().next().unwrap().split(".1-of-").next().unwrap()] {
            pair.world.run(&["verify", name]).expect(0);
        }
    }
}

#[test]
fn damage_to_a_snapshot_of_one_token_is_named() {
    let pair = Pair::of(0);
    let (name, whole) = (&pair.name, pair.whole());
    let (old_name, old) = pair.old.first_key_value().unwrap();
    let with = |bytes: Vec<u8>| Objects::from([(name.clone(), bytes)]);
    let n = whole.len();
    let other_id = name.replace(name.split('-').nth(1).unwrap().split('.').next().unwrap(), "0a1b2c3d");
    let newer = name.replace(&name[5..9], "2999");
    let degraded = name.replace(".tar", ".degraded.tar");
    let renamed = |to: &str| Objects::from([(to.to_owned(), whole.to_vec())]);
    pair.assert_all_refused(&[
        ("truncate to nothing", with(vec![]), EMPTY),
        ("truncate to a newline", with(b"\n".to_vec()), EMPTY),
        ("truncate by one byte", with(truncated(whole, n - 1)), FIRST),
        ("truncate in the middle", with(truncated(whole, n / 2)), FIRST),
        ("truncate to one byte", with(truncated(whole, 1)), NO_TOKEN),
        ("flip the first bit", with(flipped(whole, 0)), NO_TOKEN),
        ("flip a bit of the time", with(flipped(whole, 8)), FIRST),
        ("flip a bit in the middle", with(flipped(whole, n / 2)), FIRST),
        ("flip a bit of the signature", with(flipped(whole, n - 4)), FIRST),
        ("another page in its place", with(b"<html>502 Bad Gateway</html>".to_vec()), NO_TOKEN),
        ("the token twice", with([whole, whole].join(&b'\n')), AFTER_END),
        ("another token after it", with([whole, old].join(&b'\n')), AFTER_END),
        ("another token before it", with([old, whole].join(&b'\n')), AFTER_END),
        ("garbage after it", with([whole, b"garbage"].join(&b'\n')), SECOND),
        ("an old snapshot in its place", with(old.clone()), &replayed(old_name, name)),
        ("another id in its name", renamed(&other_id), &replayed(name, &other_id)),
        ("a newer time in its name", renamed(&newer), &replayed(name, &newer)),
        ("the name of a degraded one", renamed(&degraded), &replayed(name, &degraded)),
    ]);
    pair.assert_refused("delete", support::KEY, &Objects::new(), 1, "there is no snapshot");
    pair.assert_refused("a wrong key", OTHER_KEY, &pair.now, 5, "does not open this snapshot");
}

#[test]
fn damage_to_a_snapshot_of_many_tokens_is_named() {
    let pair = Pair::of(9 << 20);
    let (whole, old) = (tokens(pair.whole()), tokens(pair.old.values().next().unwrap()));
    let (a, b, c) = (&whole[0][..], &whole[1][..], &whole[2][..]);
    let (x, y, z) = (&old[0][..], &old[1][..], &old[2][..]);
    let half = |token: &[u8]| truncated(token, token.len() / 2);
    let with = |tokens: &[&[u8]]| pair.with_tokens(tokens);
    let raw = |bytes: Vec<u8>| Objects::from([(pair.name.clone(), bytes)]);
    let all = pair.whole();
    let damaged = |t: usize, at: usize| {
        with(
            &[0, 1, 2]
                .map(|i| if i == t { flipped(&whole[i], at) } else { whole[i].clone() })
                .each_ref()
                .map(Vec::as_slice),
        )
    };
    pair.assert_all_refused(&[
        ("delete the first token", with(&[b, c]), GZIP),
        ("delete the middle token", with(&[a, c]), GZIP),
        ("truncate at the last token", with(&[a, b]), GZIP),
        ("truncate after its newline", raw([a, b, b""].join(&b'\n')), GZIP),
        ("truncate after the first token", with(&[a]), GZIP),
        ("truncate by one byte", raw(truncated(all, all.len() - 1)), THIRD),
        ("truncate within the first token", raw(half(a)), FIRST),
        ("truncate within the middle token", with(&[a, &half(b)]), SECOND),
        ("truncate within the last token", with(&[a, b, &half(c)]), THIRD),
        ("truncate to nothing", raw(vec![]), EMPTY),
        ("flip a bit in the first token", damaged(0, 4000), FIRST),
        ("flip a bit in the middle token", damaged(1, 4000), SECOND),
        ("flip a bit in the last token", damaged(2, 4000), THIRD),
        ("flip the first bit of the last token", damaged(2, 0), THIRD),
        ("flip a bit of the first newline", raw(flipped(all, a.len())), FIRST),
        ("flip a bit of the last newline", raw(flipped(all, a.len() + 1 + b.len())), SECOND),
        ("swap the first two", with(&[b, a, c]), GZIP),
        ("swap the last two", with(&[a, c, b]), GZIP),
        ("reorder all", with(&[c, a, b]), GZIP),
        ("the first token twice", with(&[a, a, b, c]), GZIP),
        ("the middle token twice", with(&[a, b, b, c]), GZIP),
        ("the last token twice", with(&[a, b, c, c]), GZIP),
        ("append an old first token", with(&[a, b, c, x]), AFTER_END),
        ("append an old last token", with(&[a, b, c, z]), GZIP),
        ("append a whole snapshot", with(&[a, b, c, x, y, z]), AFTER_END),
        ("splice an old first token", with(&[x, b, c]), GZIP),
        ("splice an old middle token", with(&[a, y, c]), GZIP),
        ("splice an old last token", with(&[a, b, z]), GZIP),
        ("an old one in its place", with(&[x, y, z]), &replayed(pair.old.keys().next().unwrap(), &pair.name)),
    ]);
    pair.assert_refused("a wrong key", OTHER_KEY, &pair.now, 5, "does not open this snapshot");
}

#[test]
fn damage_to_a_snapshot_in_parts_is_named() {
    let pair = Pair::of(9 << 20).in_parts();
    let [a, b, c] = [1, 2, 3].map(|k| pair.part(k).1);
    let old: Vec<Vec<u8>> = pair.old.values().cloned().collect();
    let old_name = pair.old.keys().next().unwrap().split(".1-of-").next().unwrap();
    let with = |changed: &[(usize, Option<Vec<u8>>)]| pair.with_parts(changed);
    let some = |k: usize, bytes: &[u8]| with(&[(k, Some(bytes.to_vec()))]);
    let fourth = |k: usize| {
        let mut objects = pair.now.clone();
        objects.insert(format!("{}.{k}-of-4", pair.name), c.clone());
        objects
    };
    let beside = Objects::from([(pair.name.clone(), [a.clone(), b.clone(), c.clone()].concat())]);
    let half = |bytes: &[u8]| truncated(bytes, bytes.len() / 2);
    let incomplete = |n: usize| format!("is incomplete: {n} of its parts are there, and not all");
    pair.assert_all_refused(&[
        ("delete the first part", with(&[(1, None)]), &incomplete(2)),
        ("delete the middle part", with(&[(2, None)]), &incomplete(2)),
        ("delete the last part", with(&[(3, None)]), &incomplete(2)),
        ("a part of another count", fourth(4), &incomplete(4)),
        ("the whole beside its parts", pair.now.clone().into_iter().chain(beside).collect(), &incomplete(4)),
        ("empty the first part", some(1, b""), GZIP),
        ("empty the middle part", some(2, b""), GZIP),
        ("empty the last part", some(3, b""), GZIP),
        ("truncate the first part", some(1, &half(&a)), FIRST),
        ("truncate the first part by its newline", some(1, &truncated(&a, a.len() - 1)), FIRST),
        ("truncate the middle part", some(2, &half(&b)), SECOND),
        ("truncate the last part by one byte", some(3, &truncated(&c, c.len() - 1)), THIRD),
        ("flip a bit in the first part", some(1, &flipped(&a, 999)), FIRST),
        ("flip a bit in the middle part", some(2, &flipped(&b, 999)), SECOND),
        ("flip a bit in the last part", some(3, &flipped(&c, 999)), THIRD),
        ("swap the first two", with(&[(1, Some(b.clone())), (2, Some(a.clone()))]), GZIP),
        (
            "swap the first and the last",
            with(&[(1, Some([&c[..], b"\n"].concat())), (3, Some(a.clone()))]),
            GZIP,
        ),
        ("the middle part twice", some(3, &b), GZIP),
        ("splice an old first part", some(1, &old[0]), GZIP),
        ("splice an old middle part", some(2, &old[1]), GZIP),
        ("splice an old last part", some(3, &old[2]), GZIP),
        (
            "old parts in their place",
            with(&[1, 2, 3].map(|k| (k, Some(old[k - 1].clone())))),
            &replayed(old_name, &pair.name),
        ),
    ]);
    pair.assert_refused("delete all", support::KEY, &Objects::new(), 1, "there is no snapshot");
    pair.assert_refused("a wrong key", OTHER_KEY, &pair.now, 5, "does not open this snapshot");
}
