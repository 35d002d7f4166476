//! The allocator of the program: mimalloc, asked in the way that is quick. It never keeps an account of its own.

use std::alloc::{GlobalAlloc, Layout};

use libmimalloc_sys as mimalloc;

/// What every block of mimalloc is aligned to that is not smaller than that itself (`MI_MAX_ALIGN_SIZE`).
const NATURAL_ALIGN: usize = 16;

/// mimalloc. Its function for aligned blocks takes more than was asked for unless the size is a power of two, and misses
/// its quick path with that; nearly all blocks are small and need no more than their natural alignment.
pub(crate) struct Allocator;

fn is_natural(size: usize, align: usize) -> bool {
    align <= NATURAL_ALIGN && align <= size
}

#[expect(unsafe_code, reason = "an allocator hands out raw memory")]
// SAFETY: every block comes from mimalloc and goes back to it, whichever of its functions gave it. A block from `mi_malloc`
// and its kin is aligned to `NATURAL_ALIGN`, or to 8 if no more than 8 bytes were asked for: `is_natural` holds only where
// that is enough, and other blocks are asked for with their alignment. Sizes are passed on as they are, and mimalloc
// answers null when it has no memory, as the trait wants.
unsafe impl GlobalAlloc for Allocator {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let (size, align) = (layout.size(), layout.align());
        // SAFETY: the layout is valid by this trait's contract.
        unsafe {
            if is_natural(size, align) { mimalloc::mi_malloc(size) } else { mimalloc::mi_malloc_aligned(size, align) }
                .cast()
        }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let (size, align) = (layout.size(), layout.align());
        // SAFETY: as in `alloc`.
        unsafe {
            if is_natural(size, align) { mimalloc::mi_zalloc(size) } else { mimalloc::mi_zalloc_aligned(size, align) }
                .cast()
        }
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, _: Layout) {
        // SAFETY: the block is one of this allocator's by this trait's contract.
        unsafe { mimalloc::mi_free(block.cast()) }
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let align = layout.align();
        // SAFETY: the block is one of this allocator's by this trait's contract; the new one is aligned as in `alloc`.
        unsafe {
            if is_natural(size, align) {
                mimalloc::mi_realloc(block.cast(), size)
            } else {
                mimalloc::mi_realloc_aligned(block.cast(), size, align)
            }
            .cast()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(unsafe_code, reason = "raw memory is what is tested")]
    fn blocks_are_aligned_and_keep_what_is_in_them() {
        let sizes = (1..200).chain([1000, 1025, 3000, 5000, 9000, 70_000, 1 << 20]);
        for (size, align) in sizes.flat_map(|size| [1, 2, 4, 8, 16, 32, 64, 4096].map(|align| (size, align))) {
            let layout = Layout::from_size_align(size, align).unwrap();
            // SAFETY: each block is used inside its bounds and given back once, with the layout it has then.
            unsafe {
                let blocks: Vec<*mut u8> = (0..4)
                    .map(|n| if n % 2 == 0 { Allocator.alloc(layout) } else { Allocator.alloc_zeroed(layout) })
                    .collect();
                for (n, block) in blocks.into_iter().enumerate() {
                    assert!(!block.is_null() && block.addr().is_multiple_of(align), "{size} {align}");
                    assert!(n % 2 == 0 || (0..size).all(|i| block.add(i).read() == 0));
                    block.write_bytes(7, size);
                    let larger = Allocator.realloc(block, layout, size * 2 + 1);
                    assert!(!larger.is_null() && larger.addr().is_multiple_of(align), "{size} {align}");
                    assert!((0..size).all(|i| larger.add(i).read() == 7));
                    Allocator.dealloc(larger, Layout::from_size_align(size * 2 + 1, align).unwrap());
                }
            }
        }
    }
}
