//! What the workspace needs from outside of cargo, and why.

/// Something that a distribution packages.
pub(crate) struct Package {
    /// Debian's and Ubuntu's name for it.
    pub name: &'static str,
    /// What it is needed for.
    pub why: &'static str,
    /// A file or program whose presence shows, on any distribution, that it is installed.
    pub proof: Proof,
}

/// What shows that something is installed.
pub(crate) enum Proof {
    /// A program in `PATH`.
    Program(&'static str),
    /// A header in the system's include directory.
    Header(&'static str),
    /// A module of the system's own Python.
    PythonModule(&'static str),
}

const fn program(name: &'static str, program: &'static str, why: &'static str) -> Package {
    Package { name, why, proof: Proof::Program(program) }
}

const fn header(name: &'static str, header: &'static str, why: &'static str) -> Package {
    Package { name, why, proof: Proof::Header(header) }
}

const fn python(name: &'static str, module: &'static str, why: &'static str) -> Package {
    Package { name, why, proof: Proof::PythonModule(module) }
}

/// To build the daemon.
pub(crate) const BUILD: &[Package] = &[
    program("gcc", "gcc", "links every Rust program and compiles libbpf"),
    program("make", "make", "builds libbpf, which asks the kernel about XDP programs"),
    program("pkg-config", "pkg-config", "finds the libraries below"),
    header("libelf-dev", "gelf.h", "libbpf reads BPF objects with it"),
    header("zlib1g-dev", "zlib.h", "libelf needs it"),
    header("libhwloc-dev", "hwloc.h", "finds NUMA nodes, cores and the locality of NICs"),
    header("libudev-dev", "libudev.h", "hwloc finds NICs with it"),
];

/// To run the demo.
pub(crate) const DEMO: &[Package] =
    &[program("iproute2", "ip", "makes the network namespaces and the veth pair")];

/// To measure.
pub(crate) const BENCH: &[Package] = &[
    program("memcached", "memcached", "is what the data plane is measured against"),
    program("redis-server", "redis-server", "is what the data plane is measured against over TCP"),
    program("redis-tools", "redis-benchmark", "shows what its users see"),
];

/// To run every test.
pub(crate) const TEST: &[Package] = &[
    program("memcached", "memcached", "is what the memcached client is tested against"),
    program("redis-server", "redis-server", "is what RESP and its commands are tested against"),
    program("redis-tools", "redis-cli", "has the clients that people try the daemon with"),
    program("libmemcached-tools", "memccapable", "asks a memcached server for all it has to know"),
    python("python3-redis", "redis", "is a Redis client that people have"),
    python("python3-pymemcache", "pymemcache", "is a memcached client that people have"),
    program("g++", "g++", "compiles libFuzzer for the fuzz targets"),
    program("ethtool", "ethtool", "tells `doctor` the offloads of a NIC, which its tests look at"),
    program("util-linux", "taskset", "pins kernel threads in the tests of sockets"),
];

/// To build the XDP program where the distribution has a Rust with its library's source, and LLVM to match it.
pub(crate) const EBPF_DEBIAN: &[Package] = &[
    program("rustc-web", "/usr/bin/rustc", "compiles the XDP program: its LLVM is the one bpf-linker links"),
    program("cargo-web", "/usr/bin/cargo", "drives that compiler"),
    header(
        "rust-web-src",
        "/usr/lib/rustlib/src/rust/library/core/src/lib.rs",
        "has the source of `core`, which is built for the BPF target",
    ),
    program("llvm-22-dev", "/usr/lib/llvm-22/bin/llvm-config", "bpf-linker links it"),
    program("llvm-22", "llvm-strip-22", "takes the debugging sections out of the built program"),
    program("g++", "g++", "links LLVM, which is C++"),
];

/// To build the XDP program with rustup's nightly, whose LLVM comes with bpf-linker.
pub(crate) const EBPF_NIGHTLY: &[Package] =
    &[program("llvm", "llvm-strip", "takes the debugging sections out of the built program")];

impl Proof {
    /// True when it is there.
    pub(crate) fn holds(&self) -> bool {
        match self {
            Self::Program(program) => find_program(program),
            Self::Header(header) => {
                let multiarch = format!("/usr/include/{}-linux-gnu", std::env::consts::ARCH);
                ["/usr/include", "/usr/local/include", &multiarch]
                    .iter()
                    .any(|directory| std::path::Path::new(directory).join(header).exists())
            }
            Self::PythonModule(module) => {
                // Another Python than the system's knows nothing of the system's modules.
                let mut command = std::process::Command::new("/usr/bin/python3");
                command.args(["-c", &format!("import {module}")]);
                command.output().is_ok_and(|output| output.status.success())
            }
        }
    }
}

/// True when a program is in `PATH`, or at an absolute path.
pub(crate) fn find_program(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}
