//! Compiled filters, kept: compiling takes milliseconds, loading what is compiled a tenth of one.
//!
//! A filter is found by everything that it was made from, compared byte by byte. What is on disk is
//! used only if nobody but the host's own user (and root) could have put it there, and if it's
//! whole.

mod disk;

use std::{
    collections::VecDeque,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use super::{
    Filter, FilterError, FilterOptions, SeccompProfile,
    compile::{Deny, compile},
};
use crate::limits;

pub use disk::CacheError;

/// Filters that were compiled before.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    /// The one used last is in front.
    kept: Mutex<VecDeque<(Key, Filter)>>,
    directory: Option<disk::Directory>,
}

/// What a filter is made from, besides the program that makes it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Key {
    profile: Arc<str>,
    options: FilterOptions,
}

impl Cache {
    /// Keeps filters on disk too. The directory is made if it isn't there.
    pub(crate) fn in_directory(path: PathBuf) -> Result<Self, CacheError> {
        let directory = Some(disk::Directory::open(path)?);
        Ok(Self { kept: Mutex::default(), directory })
    }

    /// The filter of a profile, if it's in memory.
    pub(crate) fn kept(&self, profile: &SeccompProfile, options: FilterOptions) -> Option<Filter> {
        self.find(&Key { profile: profile.shared_text(), options })
    }

    /// The filter of a profile; read or compiled if it isn't in memory.
    pub(crate) fn filter(
        &self,
        profile: &SeccompProfile,
        options: FilterOptions,
    ) -> Result<Filter, FilterError> {
        let key = Key { profile: profile.shared_text(), options };
        if let Some(filter) = self.find(&key) {
            return Ok(filter);
        }
        let whole = self.directory.as_ref().map(|directory| (directory, key.whole()));
        if let Some((directory, whole)) = &whole
            && let Some(filter) = directory.read(whole)
        {
            self.keep(key, &filter);
            return Ok(filter);
        }
        let filter = compile(profile, options)?;
        if let Some((directory, whole)) = &whole {
            directory.write(whole, &filter);
        }
        self.keep(key, &filter);
        Ok(filter)
    }

    fn find(&self, key: &Key) -> Option<Filter> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let at = kept.iter().position(|(known, _)| known == key)?;
        let found = kept.remove(at)?;
        let filter = found.1.clone();
        kept.push_front(found);
        Some(filter)
    }

    fn keep(&self, key: Key, filter: &Filter) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push_front((key, filter.clone()));
        kept.truncate(limits::MAX_CACHED_FILTERS);
    }
}

impl Key {
    /// Everything that decides about the program's bytes, in one piece.
    fn whole(&self) -> Vec<u8> {
        let library = libseccomp::ScmpVersion::current().map_or_else(
            |_| String::from("unknown"),
            |version| format!("{}.{}.{}", version.major, version.minor, version.micro),
        );
        let deny = match self.options.deny {
            Deny::Notify => "notify",
            Deny::Errno => "errno",
        };
        let (arch, inet) = (std::env::consts::ARCH, self.options.inet);
        let own = env!("CARGO_PKG_VERSION");
        let (keeper, profile) = (super::profile::KEEPER, &self.profile);
        format!("{own}\0{library}\0{arch}\0{inet}\0{deny}\0{keeper}\0{profile}").into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{PermissionsExt, symlink},
        path::Path,
    };

    use super::*;
    use crate::level::Level;

    const OPTIONS: FilterOptions = FilterOptions { inet: false, deny: Deny::Notify };

    /// A directory that is gone at the end of the test.
    struct Place(PathBuf);

    impl Place {
        fn at(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("filters-{name}-{}", std::process::id()));
            fs::remove_dir_all(&path).ok();
            Self(path)
        }

        fn set_mode(path: &Path, mode: u32) {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode");
        }

        fn files(&self) -> Vec<PathBuf> {
            let entries = fs::read_dir(&self.0).expect("a directory");
            entries.map(|entry| entry.expect("an entry").path()).collect()
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).ok();
        }
    }

    fn strict() -> SeccompProfile {
        SeccompProfile::builtin(Level::Strict).expect("a valid profile")
    }

    #[test]
    fn a_filter_is_compiled_once_and_the_number_kept_is_bounded() {
        let cache = Cache::default();
        let first = cache.filter(&strict(), OPTIONS).expect("a filter");
        let second = cache.filter(&strict(), OPTIONS).expect("a filter");
        assert!(std::ptr::eq(first.program(), second.program()));
        let inet = cache.filter(&strict(), FilterOptions { inet: true, ..OPTIONS });
        assert_ne!(inet.expect("a filter"), first);
        for index in 0..limits::MAX_CACHED_FILTERS {
            let text = format!("version = 1\nname = \"p{index}\"");
            let profile = SeccompProfile::parse(&text).expect("a profile");
            cache.filter(&profile, OPTIONS).expect("a filter");
        }
        let again = cache.filter(&strict(), OPTIONS).expect("a filter");
        assert!(!std::ptr::eq(first.program(), again.program()), "the oldest has gone");
        assert_eq!(first, again);
    }

    #[test]
    fn a_directory_serves_the_next_start() {
        let place = Place::at("next");
        let open = || Cache::in_directory(place.0.clone()).expect("a directory");
        let compiled = open().filter(&strict(), OPTIONS).expect("a filter");
        let [file] = place.files().try_into().expect("one file");
        // Another program under the same key shows that the file is what is used.
        let directory = disk::Directory::open(place.0.clone()).expect("a directory");
        let key = Key { profile: strict().shared_text(), options: OPTIONS }.whole();
        assert_eq!(directory.read(&key), Some(compiled.clone()));
        let marked = Filter::from_bytes(&[6, 0, 0, 0, 0, 0, 0, 0x80]).expect("one instruction");
        directory.write(&key, &marked);
        assert_eq!(open().filter(&strict(), OPTIONS).expect("a filter"), marked);
        assert_eq!(place.files(), [file]);
    }

    #[test]
    fn damaged_files_are_compiled_anew() {
        let place = Place::at("damaged");
        let open = || Cache::in_directory(place.0.clone()).expect("a directory");
        let compiled = open().filter(&strict(), OPTIONS).expect("a filter");
        let [file] = place.files().try_into().expect("one file");
        let whole = fs::read(&file).expect("bytes");
        let changed = |at: usize| {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            bytes
        };
        let mut broken = vec![Vec::new(), whole[..whole.len() - 8].to_vec()];
        broken.extend([0, 7, 8, 15, 16, 24, 40, whole.len() - 1].map(changed));
        for bytes in broken {
            fs::write(&file, &bytes).expect("a file");
            assert_eq!(open().filter(&strict(), OPTIONS).expect("a filter"), compiled);
            assert_eq!(fs::read(&file).expect("bytes"), whole, "written anew");
        }
        Place::set_mode(&file, 0o622);
        let directory = disk::Directory::open(place.0.clone()).expect("a directory");
        let key = Key { profile: strict().shared_text(), options: OPTIONS }.whole();
        assert_eq!(directory.read(&key), None, "others could have written it");
        let elsewhere = place.0.join("elsewhere");
        fs::rename(&file, &elsewhere).expect("a move");
        Place::set_mode(&elsewhere, 0o600);
        symlink(&elsewhere, &file).expect("a link");
        assert_eq!(directory.read(&key), None, "a link leads anywhere");
    }

    #[test]
    fn directories_that_others_can_write_are_refused() {
        let place = Place::at("open");
        let inner = place.0.join("inner");
        Cache::in_directory(place.0.clone()).expect("a directory");
        Cache::in_directory(inner.clone()).expect("a directory");
        for mode in [0o720, 0o702, 0o1777] {
            Place::set_mode(&inner, mode);
            let refused = Cache::in_directory(inner.clone()).map(drop);
            assert!(matches!(refused, Err(CacheError::Open { .. })), "{mode:o}: {refused:?}");
        }
        Place::set_mode(&inner, 0o700);
        Place::set_mode(&place.0, 0o777);
        let refused = Cache::in_directory(inner.clone()).map(drop);
        assert!(matches!(refused, Err(CacheError::Open { .. })), "{refused:?}");
        Place::set_mode(&place.0, 0o1777);
        Cache::in_directory(inner.clone()).expect("sticky, as /tmp is");
        fs::write(place.0.join("file"), b"").expect("a file");
        let refused = Cache::in_directory(place.0.join("file")).map(drop);
        assert!(matches!(refused, Err(CacheError::NotADirectory { .. })), "{refused:?}");
    }
}
