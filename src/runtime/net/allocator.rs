//! The process's allocator: mimalloc, asked in the way that is cheapest for what is asked.
//!
//! What it gives is aligned to 8 bytes always, and to 16 from 16 bytes on (`MI_MAX_ALIGN_SIZE`), so the path for aligned memory
//! is left to what needs more, tasks for the most part. The crate that is usually put before it takes that path for
//! everything, which costs a relayed request nearly three hundredths of its instructions: tuning.md has the figures.

use std::alloc::{GlobalAlloc, Layout};

use libmimalloc_sys::{
    mi_free, mi_malloc, mi_malloc_aligned, mi_realloc, mi_realloc_aligned, mi_zalloc, mi_zalloc_aligned,
};

/// Every allocation is aligned so, in bytes.
const ALWAYS_ALIGNED: usize = 8;

/// And so, in bytes, if it has at least as many.
const LARGER_ALIGNED: usize = 16;

/// mimalloc.
pub struct Allocator;

fn is_usual(size: usize, align: usize) -> bool {
    align <= ALWAYS_ALIGNED || align <= LARGER_ALIGNED && size >= LARGER_ALIGNED
}

// SAFETY: mimalloc is an allocator. Each of its functions gives memory of at least the size that was asked for and aligned as
// the layout says, `is_usual` being what it promises without being told; null when there is none; and it can free and
// reallocate what any of them gave. None of them unwinds.
#[allow(unsafe_code, reason = "there is no other way to name an allocator")]
unsafe impl GlobalAlloc for Allocator {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let (size, align) = (layout.size(), layout.align());
        // SAFETY: the caller asks for more than no bytes, and a layout's alignment is a power of two.
        unsafe {
            match is_usual(size, align) {
                true => mi_malloc(size).cast(),
                false => mi_malloc_aligned(size, align).cast(),
            }
        }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let (size, align) = (layout.size(), layout.align());
        // SAFETY: as above.
        unsafe {
            match is_usual(size, align) {
                true => mi_zalloc(size).cast(),
                false => mi_zalloc_aligned(size, align).cast(),
            }
        }
    }

    #[inline]
    unsafe fn dealloc(&self, ptr: *mut u8, _layout: Layout) {
        // SAFETY: the caller gives back what it got here.
        unsafe { mi_free(ptr.cast()) }
    }

    #[inline]
    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let align = layout.align();
        // SAFETY: the caller hands in what it got here, and asks for more than no bytes. What moves gets the alignment that
        // a new allocation of that size has.
        unsafe {
            match is_usual(new_size, align) {
                true => mi_realloc(ptr.cast(), new_size).cast(),
                false => mi_realloc_aligned(ptr.cast(), new_size, align).cast(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes to all of what was given, so that a size or an address that is wrong shows.
    fn check(ptr: *mut u8, size: usize, align: usize) {
        assert!(!ptr.is_null());
        assert_eq!(ptr.addr() % align, 0, "{size} bytes, aligned to {align}");
        // SAFETY: so many bytes were asked for.
        #[allow(unsafe_code)]
        unsafe {
            ptr.write_bytes(0xa5, size);
        }
    }

    #[test]
    #[allow(unsafe_code)]
    fn what_it_gives_has_the_size_and_the_alignment_that_was_asked_for() {
        let sizes = (1..=80).chain([127, 128, 200, 1000, 1024, 1025, 4096, 16_384, 40_000, 3_000_000]);
        for size in sizes {
            for align in [1, 2, 4, 8, 16, 32, 64, 128, 4096] {
                let layout = Layout::from_size_align(size, align).unwrap();
                // SAFETY: no size is 0, and each pointer is given back once, with the layout that it has by then.
                unsafe {
                    let zeroed = Allocator.alloc_zeroed(layout);
                    assert!(std::slice::from_raw_parts(zeroed, size).iter().all(|&byte| byte == 0));
                    check(zeroed, size, align);
                    Allocator.dealloc(zeroed, layout);
                    let first = Allocator.alloc(layout);
                    check(first, size, align);
                    let grown = Allocator.realloc(first, layout, size + 9);
                    assert!(std::slice::from_raw_parts(grown, size).iter().all(|&byte| byte == 0xa5));
                    check(grown, size + 9, align);
                    let shrunk = Allocator.realloc(
                        grown,
                        Layout::from_size_align(size + 9, align).unwrap(),
                        size.div_ceil(2),
                    );
                    check(shrunk, size.div_ceil(2), align);
                    Allocator.dealloc(shrunk, Layout::from_size_align(size.div_ceil(2), align).unwrap());
                }
            }
        }
    }
}
