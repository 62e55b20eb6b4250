//! The eBPF object: the one kept in git is part of the binary, so that a user needs no eBPF toolchain.

use std::borrow::Cow;
use std::path::PathBuf;

use super::SteerError;

/// Names an object to load in place of the built-in one. CI sets it to what it just rebuilt
/// (`target/ebpf/steer.bpf.o`, absolute), so that the verdict tests run on that.
pub const OBJECT_VARIABLE: &str = "DATAPLANE_EBPF_OBJECT";

/// Bytes aligned as an ELF reader wants them.
#[repr(C, align(16))]
struct Aligned<T: ?Sized>(T);

static BUILT_IN: &Aligned<[u8]> = &Aligned(*include_bytes!("../../../ebpf/object/steer.bpf.o"));

/// The object to load.
pub(super) fn object() -> Result<Cow<'static, [u8]>, SteerError> {
    let Some(path) = std::env::var_os(OBJECT_VARIABLE).map(PathBuf::from) else {
        return Ok(Cow::Borrowed(&BUILT_IN.0));
    };
    tracing::warn!(path = %path.display(), "loading the eBPF object that {OBJECT_VARIABLE} names");
    std::fs::read(&path).map(Cow::Owned).map_err(|source| SteerError::Object { path, source })
}
