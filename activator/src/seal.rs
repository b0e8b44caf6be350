//! The allocator of this binary, which PID 1 seals when its tables are made.
//!
//! What happens to an allocation behind the seal:
//! * In debug builds, which is what the tests run: the process says so and aborts, so that no
//!   such allocation survives the tests.
//! * In release builds it is served, and the first one leaves a line in the kernel's log. PID 1
//!   that ends takes the machine along (the kernel panics), and Rust's only answer to an
//!   allocation that is refused is to abort; so serving it is the one safe choice.
//!
//! Freeing is always allowed: closing an fd or dropping a table entry needs no memory.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

static SEALED: AtomicBool = AtomicBool::new(false);
/// Where the first broken promise is written; -1 is nowhere. Taken out by the first.
static LOG: AtomicI32 = AtomicI32::new(-1);

/// <27> is facility daemon, level error: a guest's console shows it.
const BROKEN: &[u8] = b"<27>activator: allocation after start-up, this is a bug of rouse\n";

/// From now on nothing allocates. `log` must not block on write(2) and stay open.
pub(crate) fn seal(log: i32) {
    LOG.store(log, Ordering::Relaxed);
    SEALED.store(true, Ordering::Relaxed);
}

/// The system's allocator with a seal.
pub(crate) struct Sealable;

// SAFETY: every method passes its arguments on to `System` unchanged, or does not return.
unsafe impl GlobalAlloc for Sealable {
    // SAFETY: as `System`, or the process ends.
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        check();
        // SAFETY: the caller's promises are the ones that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    // SAFETY: as `System`.
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the pointer came from `System` with that layout.
        unsafe { System.dealloc(pointer, layout) }
    }

    // SAFETY: as `System`, or the process ends.
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        check();
        // SAFETY: the caller's promises are the ones that `System` asks for.
        unsafe { System.alloc_zeroed(layout) }
    }

    // SAFETY: as `System`, or the process ends.
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        check();
        // SAFETY: the pointer came from `System` with that layout.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

fn check() {
    if SEALED.load(Ordering::Relaxed) {
        broken();
    }
}

#[cold]
fn broken() {
    let log = LOG.swap(-1, Ordering::Relaxed);
    // SAFETY: the buffer is a static of that length.
    unsafe { libc::write(log, BROKEN.as_ptr().cast(), BROKEN.len()) };
    if cfg!(debug_assertions) {
        std::process::abort();
    }
}
