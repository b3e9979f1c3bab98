//! The rule sets of a process: those that are compiled in, and a user's own files over them.
//!
//! A user's file that is named like a compiled-in set replaces it, others add to them. All are read when the
//! broker starts; a bad one keeps it from starting, since a rule set that is silently left out would have
//! messages typed by the wrong rules.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use super::{
    data::FILES,
    lint::{self, Fault},
    schema::Harness,
};

/// The rule set for a program that no other one names.
const DEFAULT: &str = "auto";

static INSTALLED: OnceLock<Catalogue> = OnceLock::new();

/// Where a rule set comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The broker itself.
    BuiltIn,
    /// A user's file.
    File(PathBuf),
}

/// A rule set as it was written, and what it means.
#[derive(Clone, Debug)]
pub struct Entry {
    /// What it means, with what it inherits.
    pub harness: Harness,
    /// As it was written.
    pub text: String,
    /// By whom.
    pub origin: Origin,
}

/// All rule sets. A user's come first, so that they win where two name the same program.
#[derive(Clone, Debug, Default)]
pub struct Catalogue {
    entries: Vec<Entry>,
}

/// What is wrong with one file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {said}", self.place())]
pub struct BadFile {
    /// Which.
    pub file: PathBuf,
    /// Where in it, first is 1; absent when it could not be read.
    pub line: Option<usize>,
    /// In words.
    pub said: String,
}

impl BadFile {
    /// `file:line`.
    pub fn place(&self) -> String {
        let file = self.file.display();
        self.line.map_or_else(|| file.to_string(), |line| format!("{file}:{line}"))
    }
}

impl Catalogue {
    /// What is compiled in.
    pub fn built_in() -> Self {
        let mut catalogue = Self { entries: compiled_in().collect() };
        catalogue.inherit();
        catalogue
    }

    /// What is compiled in, and the `*.toml` files of a directory over it. There need not be one.
    ///
    /// # Errors
    /// Everything that is wrong with any of the files.
    pub fn load(dir: &Path) -> Result<Self, Vec<BadFile>> {
        let mut bad = Vec::new();
        let mut entries = Vec::new();
        for file in toml_files(dir).map_err(|error| vec![unreadable(dir, &error)])? {
            match fs::read_to_string(&file) {
                Ok(text) => match lint::read_file(&file, &text) {
                    Ok(harness) => entries.push(Entry { harness, text, origin: Origin::File(file) }),
                    Err(faults) => bad.extend(faults.into_iter().map(|fault| fault.of(&file))),
                },
                Err(error) => bad.push(unreadable(&file, &error)),
            }
        }
        let own: Vec<String> = entries.iter().map(|entry| entry.harness.name.clone()).collect();
        entries.extend(compiled_in().filter(|entry| !own.contains(&entry.harness.name)));
        let mut catalogue = Self { entries };
        bad.extend(catalogue.cross_check());
        if bad.is_empty() {
            catalogue.inherit();
            Ok(catalogue)
        } else {
            Err(bad)
        }
    }

    /// All, a user's first.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The one of this name.
    pub fn entry(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.harness.name == name)
    }

    /// The one for a program as a user writes it: by the last part of its path, else the default one.
    pub fn for_program(&self, argv0: &str) -> Option<&Harness> {
        let program = Path::new(argv0).file_name().and_then(|name| name.to_str()).unwrap_or(argv0);
        let is_named = |entry: &&Entry| entry.harness.programs.iter().any(|p| p == program);
        let named = self.entries.iter().find(is_named).or_else(|| self.entry(DEFAULT));
        named.map(|entry| &entry.harness)
    }

    /// Makes these the rule sets of this process.
    ///
    /// # Errors
    /// They have been chosen already, by an earlier call or by a look at them; nothing changes.
    pub fn install(self) -> Result<(), AlreadyChosen> {
        INSTALLED.set(self).map_err(|_| AlreadyChosen)
    }

    /// What is wrong between files that are right by themselves.
    fn cross_check(&self) -> Vec<BadFile> {
        let mut bad = Vec::new();
        for (at, entry) in self.entries.iter().enumerate() {
            let Origin::File(file) = &entry.origin else { continue };
            let harness = &entry.harness;
            let mut say = |key: &str, said: String| bad.push(lint::fault(&entry.text, key, said).of(file));
            let named =
                |name: &Option<String>| name.as_deref().map(|name| (name.to_owned(), self.entry(name)));
            match named(&harness.inherits) {
                Some((name, None)) => say("inherits", format!("there is no rule set `{name}`")),
                Some((name, Some(base))) if base.harness.inherits.is_some() => {
                    say("inherits", format!("`{name}` inherits itself; name a set that does not"));
                }
                _ => {}
            }
            if let Some((name, found)) = named(&harness.becomes)
                && found.is_none_or(|found| !found.harness.composer.is_always())
            {
                say("becomes", format!("there is no rule set `{name}` with a composer"));
            }
            let earlier = |program: &String| {
                let mut before = self.entries[..at].iter();
                before.find(|other| other.harness.programs.contains(program))
            };
            for program in &harness.programs {
                if let Some(other) = earlier(program) {
                    let said = format!("`{program}` is already matched by `{}`", other.harness.name);
                    say("match", said);
                }
            }
        }
        bad
    }

    /// Adds the rules of the sets that others inherit from. An own rule replaces one of the same id.
    fn inherit(&mut self) {
        let bases: Vec<Option<Harness>> = self
            .entries
            .iter()
            .map(|entry| self.entry(entry.harness.inherits.as_deref()?).map(|base| base.harness.clone()))
            .collect();
        for (entry, base) in self.entries.iter_mut().zip(bases) {
            if let Some(base) = base {
                entry.harness.take_rules_of(base);
            }
        }
    }
}

/// A test sees to it that all of them can be read.
fn compiled_in() -> impl Iterator<Item = Entry> {
    FILES.iter().filter_map(|text| {
        let harness = lint::read(text).ok()?;
        Some(Entry { harness, text: (*text).to_owned(), origin: Origin::BuiltIn })
    })
}

/// The rule sets of this process are chosen once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the rule sets of this process have been chosen already")]
pub struct AlreadyChosen;

/// The `*.toml` files in a directory, by name.
fn toml_files(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let found = match fs::read_dir(dir) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut files = found.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    Ok(files)
}

fn unreadable(file: &Path, error: &io::Error) -> BadFile {
    BadFile { file: file.to_owned(), line: None, said: format!("cannot be read: {error}") }
}

impl Fault {
    fn of(self, file: &Path) -> BadFile {
        BadFile { file: file.to_owned(), line: Some(self.line), said: self.said }
    }
}

fn installed() -> &'static Catalogue {
    INSTALLED.get_or_init(Catalogue::built_in)
}

impl Harness {
    /// The rule set of this name, of this process.
    pub fn by_name(name: &str) -> Option<&'static Self> {
        installed().entry(name).map(|entry| &entry.harness)
    }

    /// The rule set of this process for a program as the user wrote it: by the last part of its path, else
    /// the default one.
    pub fn for_program(argv0: &str) -> Option<&'static Self> {
        installed().for_program(argv0)
    }

    /// The longest body, in bytes, that this program is sure to be typed whole, whatever it turns out to be.
    pub fn typed_max(&'static self) -> usize {
        self.text.body_max.min(self.with_composer().text.body_max)
    }

    /// The rule set that applies once this program has shown a composer.
    pub fn with_composer(&'static self) -> &'static Self {
        self.becomes.as_deref().and_then(Self::by_name).unwrap_or(self)
    }

    fn take_rules_of(&mut self, base: Self) {
        let own: Vec<String> = self.rules().map(|rule| rule.id.clone()).collect();
        let is_new = |id: &String| !own.contains(id);
        self.idle.extend(base.idle.into_iter().filter(|rule| is_new(&rule.id)));
        self.working.extend(base.working.into_iter().filter(|rule| is_new(&rule.id)));
        self.blocked.extend(base.blocked.into_iter().filter(|dialog| is_new(&dialog.rule.id)));
        self.composer.paste_marks.extend(base.composer.paste_marks);
    }
}

#[cfg(test)]
mod tests {
    use super::{super::ComposerKind, *};

    fn dir(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(dir.path().join(name), text).unwrap();
        }
        dir
    }

    const OTTER: &str =
        "name = 'otter'\nmatch = ['otter']\ninherits = 'generic'\n[composer]\nkind = 'always'\n";

    #[test]
    fn every_compiled_in_file_is_right_and_none_is_forgotten() {
        for text in FILES {
            if let Err(faults) = lint::read(text) {
                panic!("{}: {faults:?}", text.lines().next().unwrap());
            }
        }
        let on_disk = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/harness/data");
        // As a user's files they would be accepted too: names, programs and references hold together.
        let catalogue = Catalogue::load(&on_disk).unwrap();
        assert_eq!(catalogue.entries().len(), FILES.len());
        assert!(catalogue.entries().iter().all(|entry| entry.origin != Origin::BuiltIn));
    }

    #[test]
    fn an_unknown_program_gets_the_rules_that_watch_what_it_does() {
        let harness = Harness::for_program("/usr/local/bin/whatever").unwrap();
        assert_eq!((harness.name.as_str(), harness.composer.kind), ("auto", ComposerKind::Seen));
        assert_eq!(harness.with_composer().composer.kind, ComposerKind::Always);
        assert!(Harness::by_name("nonsense").is_none());
    }

    #[test]
    fn a_users_file_adds_or_replaces() {
        let plain = "name = 'plain'\nproof = 'consumed'\nmatch = ['cat']\n[composer]\nkind = 'never'\n";
        let dir = dir(&[("otter.toml", OTTER), ("plain.toml", plain), ("notes.txt", "[")]);
        let catalogue = Catalogue::load(dir.path()).unwrap();
        assert_eq!(catalogue.entries().len(), FILES.len() + 1);
        assert_eq!(catalogue.for_program("/bin/otter").unwrap().name, "otter");
        assert_eq!(catalogue.entry("plain").unwrap().origin, Origin::File(dir.path().join("plain.toml")));
        assert_eq!(catalogue.for_program("cat").unwrap().name, "plain");
        assert_eq!(catalogue.for_program("dog").unwrap().name, "auto");
    }

    #[test]
    fn inherited_rules_come_last_and_an_own_one_of_the_same_id_wins() {
        let own = "[[blocked]]\nid = 'menu'\nregion = 'title'\nany = ['x']\n\
                   [[blocked]]\nid = 'own'\nregion = 'title'\nany = ['y']\n";
        let dir = dir(&[("otter.toml", &format!("{OTTER}{own}"))]);
        let catalogue = Catalogue::load(dir.path()).unwrap();
        let otter = &catalogue.entry("otter").unwrap().harness;
        let generic = &catalogue.entry("generic").unwrap().harness;
        let ids: Vec<_> = otter.blocked.iter().map(|dialog| dialog.rule.id.as_str()).collect();
        assert_eq!(ids[..2], ["menu", "own"]);
        assert_eq!(ids.len(), generic.blocked.len() + 1);
        assert_eq!(otter.working, generic.working);
        assert_eq!(otter.composer.paste_marks, generic.composer.paste_marks);
    }

    #[test]
    fn all_bad_files_are_named_with_their_lines() {
        let twice = OTTER.replace("'otter'\nm", "'heron'\nm");
        let dir = dir(&[
            ("crane.toml", "name = 'crane'\ncolour = 1\n"),
            ("egret.toml", &OTTER.replace("otter", "egret").replace("generic", "nobody")),
            ("gull.toml", OTTER),
            ("heron.toml", &twice),
            ("otter.toml", OTTER),
        ]);
        let said: Vec<_> =
            Catalogue::load(dir.path()).unwrap_err().iter().map(|bad| bad.to_string()).collect();
        for (file, words) in [
            ("crane.toml:2: ", "colour"),
            ("egret.toml:3: ", "nobody"),
            ("gull.toml:1: ", "otter.toml"),
            ("otter.toml:2: ", "already matched by `heron`"),
        ] {
            assert!(said.iter().any(|said| said.contains(file) && said.contains(words)), "{file}: {said:#?}");
        }
        assert_eq!(said.len(), 4, "{said:#?}");
    }

    #[test]
    fn a_directory_that_is_not_there_is_empty() {
        let catalogue = Catalogue::load(Path::new("/nonexistent/harness")).unwrap();
        assert_eq!(catalogue.entries().len(), FILES.len());
    }
}
