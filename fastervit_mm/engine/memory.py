"""Memory allocation of CPU runs."""
import ctypes
import platform


def keep_freed_memory() -> bool:
    """Make the C library keep freed memory blocks.

    glibc returns every block above 32 MB to the system when it is freed. The next use of such a
    block costs a page fault every 4 KB: a third of a forward pass at 2160 x 3840
    (docs/performance.md). The setting holds for the whole process, whose memory then stays at its
    peak. Only on Linux with glibc; elsewhere nothing is done.

    Returns:
        Whether freed blocks are kept.
    """
    if platform.libc_ver()[0] != 'glibc':
        return False
    mallopt = ctypes.CDLL(None).mallopt
    # malloc.h: M_MMAP_THRESHOLD, M_TRIM_THRESHOLD
    return bool(mallopt(-3, 2**30) and mallopt(-1, 2**31 - 1))
