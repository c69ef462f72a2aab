//! A ring of receive buffers that the kernel takes from and we give back to.

use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::Submitter;
use io_uring::types::BufRingEntry;

/// Anonymous memory, page-aligned and zeroed, unmapped on drop.
struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

impl Mapping {
    fn new(len: usize) -> io::Result<Self> {
        // SAFETY: an anonymous private mapping at an address of the kernel's choice touches no
        // existing memory. It is populated at once, so that no page fault comes later.
        let at = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE,
                -1,
                0,
            )
        };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(at.cast()).ok_or_else(io::Error::last_os_error)?;
        Ok(Self { start, len })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly the mapping made in `new`, which nothing refers to any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

/// The buffers and the ring that offers them. It has to outlive the io_uring it is registered with.
pub(crate) struct Buffers {
    ring: Mapping,
    memory: Mapping,
    count: u16,
    size: usize,
    tail: u16,
}

impl Buffers {
    /// `count` buffers (a power of two, at most 32768) of `size` bytes, all offered.
    pub(crate) fn new(count: u16, size: usize) -> io::Result<Self> {
        if !count.is_power_of_two() || count > 1 << 15 || size == 0 || size > 1 << 16 {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        let ring = Mapping::new(usize::from(count) * size_of::<BufRingEntry>())?;
        let memory = Mapping::new(usize::from(count) * size)?;
        let mut buffers = Self {
            ring,
            memory,
            count,
            size,
            tail: 0,
        };
        for id in 0..count {
            buffers.give_back(id);
        }
        buffers.publish();
        Ok(buffers)
    }

    /// Makes them known to a ring as this group.
    ///
    /// # Safety
    /// The buffers must not be dropped before the ring, with all its operations, is gone.
    pub(crate) unsafe fn register(&self, to: &Submitter<'_>, group: u16) -> io::Result<()> {
        // SAFETY: the ring's memory is page-aligned, has `count` entries, and the caller keeps it
        // for as long as the io_uring lives.
        unsafe {
            to.register_buf_ring_with_flags(self.ring.start.as_ptr() as u64, self.count, group, 0)
        }
    }

    /// The bytes of buffer `id`, all of them.
    pub(crate) fn bytes(&self, id: u16) -> Option<&[u8]> {
        if id >= self.count {
            return None;
        }
        // SAFETY: in bounds, since `id < count`. The kernel writes to a buffer only between our
        // offering it and its completion; between a completion and `give_back` it is ours. The
        // memory was zeroed at the start, so all of it is initialised.
        Some(unsafe {
            std::slice::from_raw_parts(
                self.memory.start.as_ptr().add(usize::from(id) * self.size),
                self.size,
            )
        })
    }

    /// Puts buffer `id` back; the kernel sees it after [`Buffers::publish`].
    pub(crate) fn give_back(&mut self, id: u16) {
        if id >= self.count {
            return;
        }
        let place = usize::from(self.tail & (self.count - 1));
        // SAFETY: `id` and `place` are below `count`, so both pointers stay inside their mappings.
        // Entries from the published tail on are not read by the kernel. The tail itself overlays
        // the reserved field of the first entry, which none of the setters touches.
        unsafe {
            let buffer = self.memory.start.as_ptr().add(usize::from(id) * self.size);
            let entry = &mut *self.ring.start.as_ptr().cast::<BufRingEntry>().add(place);
            entry.set_addr(buffer as u64);
            entry.set_len(self.size as u32);
            entry.set_bid(id);
        }
        self.tail = self.tail.wrapping_add(1);
    }

    /// Shows the kernel what was given back.
    pub(crate) fn publish(&mut self) {
        // SAFETY: the tail lies inside the first entry of the ring's mapping, is aligned, and is
        // shared with the kernel, which only reads it: an atomic store is what it expects.
        let tail = unsafe {
            let base = self.ring.start.as_ptr().cast::<BufRingEntry>();
            &*BufRingEntry::tail(base).cast::<AtomicU16>()
        };
        tail.store(self.tail, Ordering::Release);
    }
}
