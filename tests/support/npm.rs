//! Packages of the npm registry, installed from a committed list into the build directory.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// What a person must do when the packages are not to be had.
const NEEDED: &str = "this test needs node 20.9 or newer, npm, and a package registry that npm reaches \
                      (see `npm config get registry`)";

/// Whether a package's optional dependencies are installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Optional {
    /// They stay out: of the clients, upstream's own broker.
    #[allow(dead_code, reason = "each test binary wants one of the two")]
    Out,
    /// Those for this platform come in.
    #[allow(dead_code, reason = "each test binary wants one of the two")]
    In,
}

/// Installs what `tests/<set>` pins unless it is there already, puts the scripts of that directory beside it,
/// and answers where.
pub(crate) fn installed(set: &str, optional: Optional) -> PathBuf {
    let pinned = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(set);
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(set);
    fs::create_dir_all(&dir).unwrap();
    // Tests run in threads and in processes of their own: one installs, the others wait.
    let lock = File::create(dir.join("install.lock")).unwrap();
    lock.lock().unwrap();

    let node = run(Command::new("node").arg("--version"));
    // A lock file is there where a package leaves open what it depends on.
    let lists = ["package.json", "package-lock.json"].map(|file| pinned.join(file));
    let lists: Vec<_> = lists.into_iter().filter(|list| list.exists()).collect();
    let texts = lists.iter().map(|list| fs::read_to_string(list).unwrap());
    let stamp = std::iter::once(node).chain(texts).collect::<String>();
    let stamp_file = dir.join("installed");
    if fs::read_to_string(&stamp_file).ok().as_ref() != Some(&stamp) {
        fs::remove_file(&stamp_file).ok();
        for list in &lists {
            fs::copy(list, dir.join(list.file_name().unwrap())).unwrap();
        }
        // No script of a package runs. A lock file knows only the platforms whose packages the registry had,
        // which `npm ci` takes for a mistake.
        let options = ["install", "--no-save", "--ignore-scripts", "--no-audit", "--no-fund"];
        let mut npm = Command::new("npm");
        npm.args(options).arg("--loglevel=error").current_dir(&dir);
        if optional == Optional::Out {
            npm.arg("--omit=optional");
        }
        run(&mut npm);
        fs::write(&stamp_file, &stamp).unwrap();
    }
    for entry in fs::read_dir(&pinned).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "mjs") {
            fs::copy(&path, dir.join(path.file_name().unwrap())).unwrap();
        }
    }
    dir
}

/// Runs a command that must succeed, and answers what it printed.
fn run(command: &mut Command) -> String {
    let Output { status, stdout, stderr } =
        command.output().unwrap_or_else(|why| panic!("{command:?}: {why}; {NEEDED}"));
    let said = String::from_utf8_lossy(&stderr);
    assert!(status.success(), "{command:?}: {status}: {}; {NEEDED}", said.trim());
    String::from_utf8_lossy(&stdout).into_owned()
}
