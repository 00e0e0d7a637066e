//! Whatever a tree is made of, it comes back the same through the program.
#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

mod support;
#[path = "support/tree.rs"]
mod tree;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};
use support::World;

const CASES: u32 = 24;

/// Longer paths than this are left out: the restored ones are longer still.
const PATH_BYTES_MAX: usize = 3000;

/// One thing in a generated tree.
#[derive(Clone, Debug)]
struct Node {
    /// Which of the folders so far it lies in.
    parent: usize,
    name: Vec<u8>,
    kind: Kind,
    mode: u32,
    owner: (u32, u32),
    mtime: (i64, i64),
}

#[derive(Clone, Debug)]
enum Kind {
    Folder,
    Empty,
    Bytes(Vec<u8>),
    /// `size` bytes that repeat with a period, so that they are quickly made.
    Long {
        size: usize,
        period: u8,
    },
    /// A hole of `size` bytes with a few bytes in it.
    Sparse {
        size: u64,
        at: u64,
        bytes: Vec<u8>,
    },
    Symlink(Vec<u8>),
    /// Another name for one of the files so far.
    HardLink(usize),
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![4 => b'a'..=b'z', 1 => any::<u8>(), 1 => Just(b'\n'), 1 => Just(b'\\'), 1 => 0x80..=0xff_u8];
    let bytes = prop_oneof![6 => vec(byte.clone(), 1..20), 1 => vec(byte, 200..=255)];
    let odd = prop_oneof![
        Just(b"...".to_vec()),
        Just(b"a.db-wal".to_vec()),
        Just(b"manifest.json".to_vec()),
        Just(b" ".to_vec())
    ];
    prop_oneof![9 => bytes, 1 => odd].prop_map(|mut name| {
        name.iter_mut().filter(|b| matches!(b, 0 | b'/')).for_each(|b| *b = b'_');
        if name == b"." || name == b".." { b"dots".to_vec() } else { name }
    })
}

fn kind() -> impl Strategy<Value = Kind> {
    let sparse = (1_u64..3 << 20, any::<u64>(), vec(any::<u8>(), 0..100))
        .prop_map(|(size, at, bytes)| Kind::Sparse { size, at: at % size, bytes });
    prop_oneof![
        4 => Just(Kind::Folder),
        1 => Just(Kind::Empty),
        4 => vec(any::<u8>(), 1..2000).prop_map(Kind::Bytes),
        2 => (1_usize..400_000, 1..=255_u8).prop_map(|(size, period)| Kind::Long { size, period }),
        1 => sparse,
        2 => vec(1..=255_u8, 1..300).prop_map(Kind::Symlink),
        2 => any::<usize>().prop_map(Kind::HardLink),
    ]
}

fn node() -> impl Strategy<Value = Node> {
    let mode = prop_oneof![3 => 0..=0o777_u32, 1 => 0..=0o7777_u32, 1 => Just(0), 2 => Just(0o644)];
    let id =
        prop_oneof![2 => Just(0_u32), 1 => Just(1), 1 => 1000..70_000_u32, 1 => 0x7fff_0000..0xffff_0000_u32];
    let mtime = prop_oneof![3 => 1_000_000_000..2_000_000_000_i64, 1 => -2_000_000_000..0_i64, 1 => 0..9_000_000_000_i64];
    let nanos = prop_oneof![3 => 0..1_000_000_000_i64, 1 => Just(0)];
    (any::<usize>(), name(), kind(), mode, (id.clone(), id), (mtime, nanos))
        .prop_map(|(parent, name, kind, mode, owner, mtime)| Node { parent, name, kind, mode, owner, mtime })
}

/// A tree, and whether it has one large file.
fn nodes() -> impl Strategy<Value = Vec<Node>> {
    (vec(node(), 0..40), prop::option::weighted(0.2, 1_usize..8 << 20)).prop_map(|(mut nodes, large)| {
        if let (Some(size), Some(node)) = (large, nodes.first_mut()) {
            node.kind = Kind::Long { size, period: 251 };
        }
        nodes
    })
}

/// Makes the tree below `root`; what the file system has no room for in a name
/// is passed over.
fn make(root: &Path, nodes: &[Node]) {
    let mut folders = vec![root.to_owned()];
    let mut files: Vec<PathBuf> = Vec::new();
    let mut made: Vec<(PathBuf, &Node)> = Vec::new();
    for node in nodes {
        let path = folders[node.parent % folders.len()].join(OsStr::from_bytes(&node.name));
        if path.as_os_str().len() > PATH_BYTES_MAX || fs::symlink_metadata(&path).is_ok() {
            continue;
        }
        match &node.kind {
            Kind::Folder => {
                fs::create_dir(&path).unwrap();
                folders.push(path.clone());
            }
            Kind::Symlink(target) => symlink(OsStr::from_bytes(target), &path).unwrap(),
            Kind::HardLink(which) => match files.get(which % files.len().max(1)) {
                Some(first) => fs::hard_link(first, &path).unwrap(),
                None => continue,
            },
            contents => {
                write(&path, contents);
                files.push(path.clone());
            }
        }
        made.push((path, node));
    }
    // Innermost first: whatever is made in a folder changes its time.
    for (path, node) in made.iter().rev() {
        dress(path, node);
    }
}

fn write(path: &Path, contents: &Kind) {
    match contents {
        Kind::Bytes(bytes) => fs::write(path, bytes).unwrap(),
        Kind::Long { size, period } => {
            let one: Vec<u8> = (0..*period).collect();
            fs::write(path, one.iter().copied().cycle().take(*size).collect::<Vec<u8>>()).unwrap();
        }
        Kind::Sparse { size, at, bytes } => {
            let file = fs::File::create(path).unwrap();
            file.set_len(*size).unwrap();
            file.write_all_at(bytes, *at).unwrap();
        }
        _ => fs::write(path, b"").unwrap(),
    }
}

fn dress(path: &Path, node: &Node) {
    let root = rustix::process::geteuid().is_root();
    let is_symlink = matches!(node.kind, Kind::Symlink(_));
    if root {
        lchown(path, Some(node.owner.0), Some(node.owner.1)).unwrap();
    }
    if !is_symlink {
        // Others than root cannot read back what they may not, nor keep setuid.
        let mode = if root { node.mode } else { node.mode & 0o777 | 0o700 };
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    let time = Timespec { tv_sec: node.mtime.0, tv_nsec: node.mtime.1 };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

#[test]
fn any_tree_comes_back_identical() {
    // OFFSITE_TEST_SEED repeats a failure: 64 hex digits.
    let seed: [u8; 32] = match std::env::var("OFFSITE_TEST_SEED") {
        Ok(text) => hex::decode(text).unwrap().try_into().unwrap(),
        Err(_) => rand_seed(),
    };
    let config =
        Config { cases: CASES, failure_persistence: None, max_shrink_iters: 200, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed));
    let outcome = runner.run(&nodes(), |nodes| {
        let world = World::empty();
        world.config("[tier1.all]\npaths = [\"sys\"]\n");
        make(&world.path("sys"), &nodes);
        let before = tree::facts(&world.path("sys"));
        prop_assert_eq!(&world.backup()["state"], "complete");
        world.run(&["restore", "--target", "back"]).expect(0);
        tree::assert_same(&before, &tree::facts(&world.restored("back", "sys")));
        // Reading it has changed nothing.
        tree::assert_same(&before, &tree::facts(&world.path("sys")));
        world.assert_no_leftovers();
        Ok(())
    });
    if let Err(error) = outcome {
        let why = match error {
            TestError::Fail(reason, nodes) => format!("{reason}\nsmallest tree: {nodes:#?}"),
            TestError::Abort(reason) => reason.to_string(),
        };
        panic!("{why}\nrepeat with OFFSITE_TEST_SEED={}", hex::encode(seed));
    }
}

fn rand_seed() -> [u8; 32] {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).unwrap();
    seed
}
