//! Temporary files and folders: gone when they are dropped, and when a signal ends the command.
//!
//! A signal ends a process without dropping anything. So whatever is temporary is listed here while it is
//! there, and a thread of the command waits for signals ([`erase_on_signals`]) and erases what is listed
//! before the process ends as it would have ended. From then on nothing temporary is made, dropped or put in
//! its place any more: whoever tries waits for the end. What has to happen whole or not at all, such as
//! several files that take their places, is done in a [`Steady`] section, for whose end a signal waits.
//!
//! A library that is not the command keeps the list too, and does with signals what it likes.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tempfile::{Builder, NamedTempFile, TempDir};

/// How what is listed is erased.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    File,
    /// With all that is in it.
    Folder,
    /// If there is nothing in it.
    EmptyFolder,
}

/// What is temporary now. A list, and no value that is handed on: a signal comes to the process.
static LISTED: Mutex<BTreeMap<PathBuf, Kind>> = Mutex::new(BTreeMap::new());
/// Held by who is in a steady section, and by the thread that ends the process.
static STEADY: Mutex<()> = Mutex::new(());

fn lock<T>(mutex: &'static Mutex<T>) -> MutexGuard<'static, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A section that no signal cuts: one that comes takes effect when this is dropped. They do not nest.
#[derive(Debug)]
pub(crate) struct Steady {
    _held: MutexGuard<'static, ()>,
}

impl Steady {
    /// Begins a section.
    pub(crate) fn begin() -> Self {
        Self { _held: lock(&STEADY) }
    }
}

/// A path on the list, until it is dropped.
#[derive(Debug)]
struct Listing {
    path: PathBuf,
}

impl Listing {
    fn add(list: &mut BTreeMap<PathBuf, Kind>, path: &Path, kind: Kind) -> Self {
        // All in one form, so that what is in a folder comes after it.
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        list.insert(path.clone(), kind);
        Self { path }
    }
}

impl Drop for Listing {
    fn drop(&mut self) {
        lock(&LISTED).remove(&self.path);
    }
}

/// A file that is erased unless it takes the place of another.
#[derive(Debug)]
pub(crate) struct TemporaryFile {
    // Fields are dropped in this order: it is on the list as long as it is there.
    file: NamedTempFile,
    _listing: Listing,
}

impl TemporaryFile {
    /// A new file in a folder, called as the builder says.
    pub(crate) fn new(builder: &Builder<'_, '_>, folder: &Path) -> io::Result<Self> {
        let mut list = lock(&LISTED);
        let file = builder.tempfile_in(folder)?;
        let listing = Listing::add(&mut list, file.path(), Kind::File);
        Ok(Self { file, _listing: listing })
    }

    pub(crate) fn as_file(&self) -> &File {
        self.file.as_file()
    }

    pub(crate) fn path(&self) -> &Path {
        self.file.path()
    }

    /// Lets it take the place of a file.
    pub(crate) fn persist(self, target: &Path, _steady: &Steady) -> io::Result<()> {
        self.file.persist(target)?;
        Ok(())
    }
}

impl Write for TemporaryFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// A folder that is erased with all that is in it, unless it takes the place of another.
#[derive(Debug)]
pub(crate) struct TemporaryFolder {
    folder: TempDir,
    _listing: Listing,
}

impl TemporaryFolder {
    /// A new folder in another, called as the builder says.
    pub(crate) fn new(builder: &Builder<'_, '_>, parent: &Path) -> io::Result<Self> {
        let mut list = lock(&LISTED);
        let folder = builder.tempdir_in(parent)?;
        let listing = Listing::add(&mut list, folder.path(), Kind::Folder);
        Ok(Self { folder, _listing: listing })
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Lets it take a place. Gives the folder that stood there, if one did, to be dropped when the steady
    /// section has ended, since to erase it may take long.
    pub(crate) fn replace(self, place: &Path, _steady: &Steady) -> io::Result<Option<Replaced>> {
        let Self { folder, _listing } = self;
        let taken = folder.path().with_extension("old");
        let was_there = place.is_dir();
        if was_there {
            fs::rename(place, &taken)?;
        }
        if let Err(error) = fs::rename(folder.path(), place) {
            if was_there {
                let _ = fs::rename(&taken, place);
            }
            return Err(error);
        }
        // It is no temporary folder any more.
        let _ = folder.keep();
        if !was_there {
            return Ok(None);
        }
        let listing = Listing::add(&mut lock(&LISTED), &taken, Kind::Folder);
        Ok(Some(Replaced { path: taken, _listing: listing }))
    }
}

/// A folder whose place another has taken; erased when it is dropped.
#[derive(Debug)]
pub(crate) struct Replaced {
    path: PathBuf,
    _listing: Listing,
}

impl Drop for Replaced {
    fn drop(&mut self) {
        // What it was replaced by is there: that some of it stays, with the name of what is temporary, is no
        // failure of what was asked for.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Folders for outputs, and those above them. Of those that were made for them the ones that are empty when
/// this is dropped are erased: who fails leaves none behind.
#[derive(Debug, Default)]
pub(crate) struct OutputFolders {
    /// Those that were made, each after those that it is in.
    made: Vec<Listing>,
}

impl OutputFolders {
    /// Adds the folder at a path, which is there afterwards.
    pub(crate) fn create(&mut self, path: &Path) -> io::Result<()> {
        let missing = path.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.exists());
        let missing: Vec<&Path> = missing.collect();
        for path in missing.into_iter().rev() {
            let mut list = lock(&LISTED);
            match fs::create_dir(path) {
                Ok(()) => self.made.push(Listing::add(&mut list, path, Kind::EmptyFolder)),
                // Somebody else has made it meanwhile.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        match path.as_os_str().is_empty() || fs::metadata(path)?.is_dir() {
            true => Ok(()),
            false => Err(io::ErrorKind::NotADirectory.into()),
        }
    }
}

impl Drop for OutputFolders {
    fn drop(&mut self) {
        for listing in self.made.drain(..).rev() {
            // One that holds something stays.
            let _ = fs::remove_dir(&listing.path);
        }
    }
}

/// Erases what is listed. Other threads may still write into its folders.
fn erase(list: &BTreeMap<PathBuf, Kind>) {
    /// Times that a folder is tried in which files appear meanwhile.
    const TRIES: usize = 1000;
    // What stands in a folder comes after it in the order of paths.
    for (path, kind) in list.iter().rev() {
        match kind {
            Kind::File => drop(fs::remove_file(path)),
            Kind::EmptyFolder => drop(fs::remove_dir(path)),
            Kind::Folder => {
                let is_gone = |_: &usize| fs::remove_dir_all(path).is_ok() || !path.exists();
                (0..TRIES).find(is_gone);
            }
        }
    }
}

/// Has a signal that would end the process (an interrupt, a request to terminate, the end of the terminal)
/// erase first what is temporary. Signals that the process was started to ignore are ignored still.
#[cfg(unix)]
pub(crate) fn erase_on_signals() {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    use signal_hook::iterator::Signals;

    let wait = || {
        let ending = [SIGHUP, SIGINT, SIGTERM].into_iter().filter(|&signal| !is_ignored(signal));
        let Ok(mut signals) = Signals::new(ending) else { return };
        let Some(signal) = signals.forever().next() else { return };
        let _steady = Steady::begin();
        // Held until the process has ended.
        let list = lock(&LISTED);
        erase(&list);
        let _ = signal_hook::low_level::emulate_default_handler(signal);
        std::process::exit(128 + signal);
    };
    // Without a thread signals do what they always do.
    let _ = std::thread::Builder::new().name("signals".to_owned()).spawn(wait);
}

/// Has a signal erase what is temporary: not on this system.
#[cfg(not(unix))]
pub(crate) fn erase_on_signals() {}

/// Whether the process ignores a signal, as `nohup` has it do.
#[cfg(unix)]
fn is_ignored(signal: i32) -> bool {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: without a new action the call only writes the present one to where the last argument points,
    // which is memory for one; zeros are a valid action too, should it fail.
    let action = unsafe {
        libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr());
        action.assume_init()
    };
    action.sa_sigaction == libc::SIG_IGN
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry"));
        let mut names: Vec<String> =
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn what_is_listed_is_erased_and_nothing_else() {
        let scratch = tempfile::tempdir().expect("a folder");
        let made = |name: &str| {
            let path = scratch.path().join(name);
            fs::create_dir(&path).expect("a folder");
            path
        };
        let (empty, full, whole) = (made("empty"), made("full"), made("whole"));
        for file in [full.join("kept"), whole.join("file"), scratch.path().join("file")] {
            fs::write(file, "").expect("written");
        }
        let list = BTreeMap::from([
            (empty, Kind::EmptyFolder),
            (full, Kind::EmptyFolder),
            (whole.join("file"), Kind::File),
            (whole, Kind::Folder),
            (scratch.path().join("file"), Kind::File),
            (scratch.path().join("gone"), Kind::Folder),
        ]);
        erase(&list);
        assert_eq!(names(scratch.path()), ["full"]);
    }

    #[test]
    fn empty_folders_for_outputs_do_not_stay() {
        let scratch = tempfile::tempdir().expect("a folder");
        let at = |path: &str| scratch.path().join(path);
        let create = |paths: &[&str]| {
            let mut folders = OutputFolders::default();
            paths.iter().try_for_each(|path| folders.create(&at(path))).map(|()| folders)
        };
        drop(create(&["a/b/c", "a/d", "a"]).expect("made"));
        assert!(names(scratch.path()).is_empty());
        let folders = create(&["a/b/c"]).expect("made");
        fs::write(at("a/file"), "").expect("written");
        drop(folders);
        assert_eq!(names(&at("a")), ["file"]);
        drop(create(&["a"]).expect("there"));
        assert!(create(&["a/b", "a/file/b"]).is_err() && create(&["a/file"]).is_err());
        assert_eq!(names(&at("a")), ["file"]);
    }

    #[test]
    fn a_folder_takes_the_place_of_another() {
        let scratch = tempfile::tempdir().expect("a folder");
        let place = scratch.path().join("place");
        for name in ["first", "second"] {
            let folder = TemporaryFolder::new(&Builder::new(), scratch.path()).expect("made");
            fs::write(folder.path().join(name), "").expect("written");
            let steady = Steady::begin();
            let replaced = folder.replace(&place, &steady).expect("moved");
            drop(steady);
            assert_eq!(replaced.is_some(), name == "second");
            drop(replaced);
            assert_eq!(
                (names(&place), names(scratch.path())),
                (vec![name.to_owned()], vec!["place".to_owned()])
            );
        }
    }
}
