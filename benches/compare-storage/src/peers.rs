//! The stores that are compared.

use crate::{Changes, PAGE_BYTES, Page};
use redb::{ReadableDatabase, TableDefinition};
use replicore_persistence::{
    BatchLog, BatchLogOptions, CheckpointItem, CheckpointItems, CheckpointOptions, CheckpointRequest, CheckpointStore,
    FileDisk, PageDelta, PageIndex, PageMap,
};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

/// Something that keeps pages by number.
pub trait Store {
    fn name(&self) -> &'static str;

    /// Returns once the pages are durable.
    fn commit(&mut self, changes: &Changes);

    /// What is done between commits, and not measured.
    fn settle(&mut self) {}

    fn read(&mut self, place: u64) -> Page;
}

/// The stores in folders of their own; the checkpoint store first.
pub fn all(directory: &Path) -> Vec<Box<dyn Store>> {
    let folder = |name: &str| {
        let path = directory.join(name);
        std::fs::create_dir_all(&path).expect("a folder");
        path
    };
    vec![
        Box::new(Checkpoints::open(&folder("checkpoints"))),
        Box::new(Log::open(&folder("log"))),
        Box::new(Redb::open(&folder("redb"))),
        Box::new(Fjall::open(&folder("fjall"))),
        Box::new(Lmdb::open(&folder("lmdb"))),
        #[cfg(feature = "rocksdb")]
        Box::new(crate::rocksdb::RocksDb::open(&folder("rocksdb"))),
    ]
}

/// A page map and checkpoints of it, as the replica uses them: the change is applied, hashed, written and taken over.
struct Checkpoints {
    store: CheckpointStore,
    memory: PageMap,
    height: u64,
}

impl Checkpoints {
    fn open(folder: &Path) -> Self {
        let (store, _) =
            CheckpointStore::open(Arc::new(FileDisk), folder, CheckpointOptions::default()).expect("a store");
        Self {
            store,
            memory: PageMap::default(),
            height: 0,
        }
    }
}

impl Store for Checkpoints {
    fn name(&self) -> &'static str {
        "replicore checkpoint"
    }

    fn commit(&mut self, changes: &Changes) {
        let mut delta = PageDelta::default();
        for (place, page) in changes {
            delta.insert(PageIndex(*place), page);
        }
        self.memory.apply(delta);
        self.height += 1;
        let item = CheckpointItem {
            metadata: Vec::new().into(),
            blobs: Vec::new(),
            memories: vec![self.memory.clone()],
        };
        let written = self.store.write(CheckpointRequest {
            height: self.height,
            state_hash: self.memory.digest(),
            system: Vec::new().into(),
            items: CheckpointItems::All(BTreeMap::from([(vec![1], item)])),
        });
        for memory in written.expect("written").memories {
            self.memory = self.memory.rebase(&memory.snapshot, &memory.stored);
        }
    }

    fn read(&mut self, place: u64) -> Page {
        self.memory.get(PageIndex(place)).map_or([0; PAGE_BYTES], |page| *page)
    }
}

/// The batch log alone, given the pages as records of one group: what fjall and RocksDB do before they answer, too. They
/// put what is in their journals into tables later, in the background; here a checkpoint does.
struct Log {
    log: BatchLog,
    height: u64,
    /// The height of a page's last record.
    heights: HashMap<u64, u64>,
}

/// Records that the log keeps, which are 128 MiB: what is older is in a checkpoint by then.
const LOG_RECORDS: u64 = 32_768;

impl Log {
    fn open(folder: &Path) -> Self {
        let options = BatchLogOptions::default();
        Self {
            log: BatchLog::open(Arc::new(FileDisk), folder, options).expect("a log").0,
            height: 0,
            heights: HashMap::new(),
        }
    }
}

impl Store for Log {
    fn name(&self) -> &'static str {
        "replicore batch log"
    }

    fn commit(&mut self, changes: &Changes) {
        for (place, page) in changes {
            self.height += 1;
            self.log.append(self.height, &page[..]).expect("appended");
            self.heights.insert(*place, self.height);
        }
        self.log.sync().expect("synced");
    }

    /// Between commits, as a checkpoint thread does it.
    fn settle(&mut self) {
        let needed = self.height.saturating_sub(LOG_RECORDS);
        self.log.truncate_before(needed).expect("truncated");
    }

    fn read(&mut self, place: u64) -> Page {
        let records = self.log.read_from(self.heights[&place]).expect("a reader");
        let (_, page) = records.into_iter().next().expect("a record").expect("read");
        page.try_into().expect("a page")
    }
}

const PAGES: TableDefinition<u64, &[u8]> = TableDefinition::new("pages");

/// One write transaction a commit, with redb's default durability: durable when it returns.
struct Redb(redb::Database);

impl Redb {
    fn open(folder: &Path) -> Self {
        Self(redb::Database::create(folder.join("pages.redb")).expect("a database"))
    }
}

impl Store for Redb {
    fn name(&self) -> &'static str {
        "redb"
    }

    fn commit(&mut self, changes: &Changes) {
        let transaction = self.0.begin_write().expect("a transaction");
        {
            let mut table = transaction.open_table(PAGES).expect("a table");
            for (place, page) in changes {
                table.insert(place, &page[..]).expect("inserted");
            }
        }
        transaction.commit().expect("committed");
    }

    fn read(&mut self, place: u64) -> Page {
        let transaction = self.0.begin_read().expect("a transaction");
        let table = transaction.open_table(PAGES).expect("a table");
        let page = table.get(place).expect("readable").expect("present");
        page.value().try_into().expect("a page")
    }
}

/// One batch a commit, with the journal synced. Compression is off, as it is for the others.
struct Fjall {
    database: fjall::Database,
    pages: fjall::Keyspace,
}

impl Fjall {
    fn open(folder: &Path) -> Self {
        let database = fjall::Database::builder(folder).open().expect("a database");
        let pages = database
            .keyspace("pages", fjall::KeyspaceCreateOptions::default)
            .expect("a keyspace");
        Self { database, pages }
    }
}

impl Store for Fjall {
    fn name(&self) -> &'static str {
        "fjall"
    }

    fn commit(&mut self, changes: &Changes) {
        let mut batch = self.database.batch();
        for (place, page) in changes {
            batch.insert(&self.pages, place.to_be_bytes(), &page[..]);
        }
        batch.commit().expect("committed");
        self.database.persist(fjall::PersistMode::SyncData).expect("synced");
    }

    fn read(&mut self, place: u64) -> Page {
        let page = self.pages.get(place.to_be_bytes()).expect("readable").expect("present");
        page[..].try_into().expect("a page")
    }
}

/// One write transaction a commit, with LMDB's default durability: synced when it returns.
struct Lmdb {
    environment: heed::Env,
    pages: heed::Database<heed::types::U64<heed::byteorder::BE>, heed::types::Bytes>,
}

/// Address space for the map, several times what is stored.
const LMDB_MAP_BYTES: usize = 4 << 30;

impl Lmdb {
    fn open(folder: &Path) -> Self {
        let mut options = heed::EnvOpenOptions::new();
        options.map_size(LMDB_MAP_BYTES);
        // SAFETY: the folder is new and this process alone opens it, once.
        let environment = unsafe { options.open(folder) }.expect("an environment");
        let mut transaction = environment.write_txn().expect("a transaction");
        let pages = environment.create_database(&mut transaction, None).expect("a database");
        transaction.commit().expect("committed");
        Self { environment, pages }
    }
}

impl Store for Lmdb {
    fn name(&self) -> &'static str {
        "LMDB"
    }

    fn commit(&mut self, changes: &Changes) {
        let mut transaction = self.environment.write_txn().expect("a transaction");
        for (place, page) in changes {
            self.pages.put(&mut transaction, place, &page[..]).expect("put");
        }
        transaction.commit().expect("committed");
    }

    fn read(&mut self, place: u64) -> Page {
        let transaction = self.environment.read_txn().expect("a transaction");
        let page = self
            .pages
            .get(&transaction, &place)
            .expect("readable")
            .expect("present");
        page.try_into().expect("a page")
    }
}
