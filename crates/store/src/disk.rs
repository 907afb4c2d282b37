//! Keeps on disk what the consensus must not forget: its votes, its log, and what came of it.
//!
//! One file of `redb`, which is whole after a crash at any moment; every change is on disk when its call returns.
//! A directory has a number of its own, made when it is new: one that lost it is somebody else to the others, so
//! that it cannot vote twice.

use redb::{
    Database, DatabaseError, Durability, ReadableDatabase as _, ReadableTable as _, TableDefinition,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs;
use std::ops::RangeBounds;
use std::path::Path;
use std::time::Duration;

const FILE: &str = "store.redb";
const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
/// Bytes of pages that are kept in memory: all there is of it mostly fits.
const CACHE: usize = 1 << 20;
/// How often and how soon a file is tried again that another process has.
const TRIES: u32 = 20;
const AGAIN: Duration = Duration::from_millis(25);
/// Names in the table of single values.
const INCARNATION: &str = "incarnation";

/// Any failure of the disk, of the file's form, or of what is in it.
pub(crate) type Failed = Box<dyn std::error::Error + Send + Sync>;

/// The open file.
#[derive(Debug)]
pub(crate) struct Disk {
    db: Database,
    incarnation: u64,
    is_new: bool,
}

impl Disk {
    /// Opens the directory's file, or makes it.
    pub(crate) fn open(directory: &Path) -> Result<Self, Failed> {
        fs::create_dir_all(directory)?;
        let path = directory.join(FILE);
        let mut tries = 0;
        let db = loop {
            match Database::builder().set_cache_size(CACHE).create(&path) {
                // An agent that ends may still have it for a moment.
                Err(DatabaseError::DatabaseAlreadyOpen) if tries < TRIES => {
                    tries += 1;
                    std::thread::sleep(AGAIN);
                }
                opened => break opened?,
            }
        };
        let write = db.begin_write()?;
        write.open_table(LOG)?;
        write.open_table(META)?;
        write.commit()?;
        // The name of a new file must survive as its content does.
        fs::File::open(directory)?.sync_all()?;
        let mut disk = Self { db, incarnation: 0, is_new: false };
        match disk.get(INCARNATION)? {
            Some(known) => disk.incarnation = known,
            None => {
                disk.incarnation = getrandom::u64()?.max(1);
                disk.put(INCARNATION, &disk.incarnation)?;
                disk.is_new = true;
            }
        }
        Ok(disk)
    }

    /// The directory's number.
    pub(crate) const fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// Whether it was made just now.
    pub(crate) const fn is_new(&self) -> bool {
        self.is_new
    }

    pub(crate) fn get<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, Failed> {
        let read = self.db.begin_read()?;
        let table = read.open_table(META)?;
        let Some(found) = table.get(name)? else { return Ok(None) };
        Ok(Some(serde_json::from_slice(found.value())?))
    }

    pub(crate) fn put(&self, name: &str, value: &impl Serialize) -> Result<(), Failed> {
        self.change(|_, meta| {
            meta.insert(name, serde_json::to_vec(value)?.as_slice())?;
            Ok(())
        })
    }

    /// Entries of the log, in order.
    pub(crate) fn log<T: DeserializeOwned>(
        &self,
        range: impl RangeBounds<u64>,
    ) -> Result<Vec<T>, Failed> {
        let read = self.db.begin_read()?;
        let table = read.open_table(LOG)?;
        let mut all = Vec::new();
        let range = (range.start_bound().cloned(), range.end_bound().cloned());
        for found in table.range::<u64>(range)? {
            all.push(serde_json::from_slice(found?.1.value())?);
        }
        Ok(all)
    }

    /// The last entry of the log.
    pub(crate) fn last<T: DeserializeOwned>(&self) -> Result<Option<T>, Failed> {
        let read = self.db.begin_read()?;
        let table = read.open_table(LOG)?;
        let Some((_, last)) = table.last()? else { return Ok(None) };
        Ok(Some(serde_json::from_slice(last.value())?))
    }

    pub(crate) fn append<T: Serialize>(&self, entries: &[(u64, T)]) -> Result<(), Failed> {
        self.change(|log, _| {
            for (index, entry) in entries {
                log.insert(index, serde_json::to_vec(entry)?.as_slice())?;
            }
            Ok(())
        })
    }

    /// Takes out entries of the log, and keeps what is to be known about that.
    pub(crate) fn cut(
        &self,
        range: impl RangeBounds<u64>,
        known: Option<(&str, &impl Serialize)>,
    ) -> Result<(), Failed> {
        let range = (range.start_bound().cloned(), range.end_bound().cloned());
        self.change(|log, meta| {
            log.retain_in::<u64, _>(range, |_, _| false)?;
            if let Some((name, value)) = known {
                meta.insert(name, serde_json::to_vec(value)?.as_slice())?;
            }
            Ok(())
        })
    }

    fn change(
        &self,
        change: impl FnOnce(
            &mut redb::Table<'_, u64, &[u8]>,
            &mut redb::Table<'_, &str, &[u8]>,
        ) -> Result<(), Failed>,
    ) -> Result<(), Failed> {
        let mut write = self.db.begin_write()?;
        write.set_durability(Durability::Immediate)?;
        {
            let mut log = write.open_table(LOG)?;
            let mut meta = write.open_table(META)?;
            change(&mut log, &mut meta)?;
        }
        write.commit()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_there_after_a_restart_and_a_new_directory_is_somebody_else() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::open(folder.path()).unwrap();
        assert!(disk.is_new());
        let first = disk.incarnation();
        disk.append(&[(1, "one"), (2, "two"), (3, "three")]).unwrap();
        disk.cut(3.., None::<(&str, &u8)>).unwrap();
        disk.cut(..=1, Some(("purged", &1))).unwrap();
        assert!(Disk::open(folder.path()).is_err(), "one process at a time");
        drop(disk);
        let disk = Disk::open(folder.path()).unwrap();
        assert_eq!((disk.incarnation(), disk.is_new()), (first, false));
        assert_eq!(disk.log::<String>(..).unwrap(), ["two"]);
        assert_eq!(disk.last::<String>().unwrap().as_deref(), Some("two"));
        assert_eq!(disk.get::<u64>("purged").unwrap(), Some(1));
        assert_eq!(disk.get::<u64>("vote").unwrap(), None);
        let other = tempfile::tempdir().unwrap();
        assert_ne!(Disk::open(other.path()).unwrap().incarnation(), first);
    }
}
