//! RocksDB through its C interface, from the system's library.

use crate::peers::Store;
use crate::{Changes, Page};
use std::ffi::{CStr, CString, c_char, c_int, c_uchar, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;

// What is used of `rocksdb/c.h`. Handles are opaque.
#[link(name = "rocksdb")]
unsafe extern "C" {
    fn rocksdb_options_create() -> *mut c_void;
    fn rocksdb_options_destroy(options: *mut c_void);
    fn rocksdb_options_set_create_if_missing(options: *mut c_void, value: c_uchar);
    fn rocksdb_options_set_compression(options: *mut c_void, kind: c_int);
    fn rocksdb_options_increase_parallelism(options: *mut c_void, threads: c_int);
    fn rocksdb_open(options: *const c_void, path: *const c_char, error: *mut *mut c_char) -> *mut c_void;
    fn rocksdb_close(database: *mut c_void);
    fn rocksdb_writeoptions_create() -> *mut c_void;
    fn rocksdb_writeoptions_destroy(options: *mut c_void);
    fn rocksdb_writeoptions_set_sync(options: *mut c_void, value: c_uchar);
    fn rocksdb_readoptions_create() -> *mut c_void;
    fn rocksdb_readoptions_destroy(options: *mut c_void);
    fn rocksdb_writebatch_create() -> *mut c_void;
    fn rocksdb_writebatch_destroy(batch: *mut c_void);
    fn rocksdb_writebatch_put(batch: *mut c_void, key: *const u8, key_len: usize, value: *const u8, value_len: usize);
    fn rocksdb_write(database: *mut c_void, options: *const c_void, batch: *mut c_void, error: *mut *mut c_char);
    fn rocksdb_get(
        database: *mut c_void,
        options: *const c_void,
        key: *const u8,
        key_len: usize,
        value_len: *mut usize,
        error: *mut *mut c_char,
    ) -> *mut u8;
    fn rocksdb_free(bytes: *mut c_void);
}

/// `rocksdb_no_compression`: pages that nothing compresses, as for the other stores.
const NO_COMPRESSION: c_int = 0;

/// One write batch a commit, with the log synced.
pub struct RocksDb {
    database: *mut c_void,
    write_options: *mut c_void,
    read_options: *mut c_void,
}

impl RocksDb {
    pub fn open(folder: &Path) -> Self {
        let path = CString::new(folder.as_os_str().as_bytes()).expect("a path without zeros");
        let mut error = ptr::null_mut();
        // SAFETY: every handle comes from the library and is used as its header says; the path ends with a zero and
        // outlives the call, and the options are destroyed after their last use.
        unsafe {
            let options = rocksdb_options_create();
            rocksdb_options_set_create_if_missing(options, 1);
            rocksdb_options_set_compression(options, NO_COMPRESSION);
            rocksdb_options_increase_parallelism(options, 2);
            let database = rocksdb_open(options, path.as_ptr(), &raw mut error);
            rocksdb_options_destroy(options);
            check(error);
            let write_options = rocksdb_writeoptions_create();
            rocksdb_writeoptions_set_sync(write_options, 1);
            Self {
                database,
                write_options,
                read_options: rocksdb_readoptions_create(),
            }
        }
    }
}

impl Store for RocksDb {
    fn name(&self) -> &'static str {
        "RocksDB"
    }

    fn commit(&mut self, changes: &Changes) {
        let mut error = ptr::null_mut();
        // SAFETY: the handles are those of `open`; the batch copies keys and values, which are valid for the lengths given.
        unsafe {
            let batch = rocksdb_writebatch_create();
            for (place, page) in changes {
                let key = place.to_be_bytes();
                rocksdb_writebatch_put(batch, key.as_ptr(), key.len(), page.as_ptr(), page.len());
            }
            rocksdb_write(self.database, self.write_options, batch, &raw mut error);
            rocksdb_writebatch_destroy(batch);
        }
        check(error);
    }

    fn read(&mut self, place: u64) -> Page {
        let (key, mut len, mut error) = (place.to_be_bytes(), 0, ptr::null_mut());
        // SAFETY: the handles are those of `open`. The library gives `len` bytes that are ours until they are freed.
        unsafe {
            let (database, options) = (self.database, self.read_options);
            let value = rocksdb_get(database, options, key.as_ptr(), key.len(), &raw mut len, &raw mut error);
            check(error);
            assert!(!value.is_null(), "page {place} is not there");
            let page = std::slice::from_raw_parts(value, len).try_into().expect("a page");
            rocksdb_free(value.cast());
            page
        }
    }
}

impl Drop for RocksDb {
    fn drop(&mut self) {
        // SAFETY: the handles are those of `open`, and nobody uses them afterwards.
        unsafe {
            rocksdb_close(self.database);
            rocksdb_writeoptions_destroy(self.write_options);
            rocksdb_readoptions_destroy(self.read_options);
        }
    }
}

/// Ends the comparison where the library reports an error.
fn check(error: *mut c_char) {
    if !error.is_null() {
        // SAFETY: the library reports errors as text that ends with a zero.
        let text = unsafe { CStr::from_ptr(error) };
        panic!("RocksDB: {}", text.to_string_lossy());
    }
}
