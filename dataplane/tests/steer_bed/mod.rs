//! Two network namespaces joined by a veth pair, and a place to pin, for one test. All of it goes with the test.

mod link;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

pub(crate) use link::detach_link;
use rustix::mount::UnmountFlags;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// The namespaces of one test.
pub(crate) struct Bed {
    name: String,
    pins: tempfile::TempDir,
    pin_directory: PathBuf,
}

impl Bed {
    /// The interface XDP is attached to.
    pub(crate) const SERVER: &str = "srv0";
    /// Its peer.
    pub(crate) const CLIENT: &str = "cli0";
    /// Its address.
    pub(crate) const SERVER_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 7, 0, 1));

    /// Makes them; `name` tells this test's from others'.
    pub(crate) fn new(name: &str) -> Self {
        let name = format!("steer-{name}-{}", std::process::id());
        let pins = tempfile::tempdir().expect("a temporary directory");
        let pin_directory = pins.path().join("pins");
        let bed = Self { name, pins, pin_directory };
        let (server, client) = (bed.server_namespace(), bed.client_namespace());
        run(&format!(
            "ip netns add {server} && ip netns add {client} \
             && ip -n {server} link add {0} type veth peer name {1} netns {client} \
             && ip -n {server} addr add {address}/24 dev {0} && ip -n {client} addr add 10.7.0.2/24 dev {1} \
             && ip -n {server} link set lo up && ip -n {server} link set {0} up \
             && ip -n {client} link set {1} up",
            Self::SERVER,
            Self::CLIENT,
            address = Self::SERVER_ADDRESS,
        ));
        bed
    }

    pub(crate) fn server_namespace(&self) -> String {
        format!("{}-s", self.name)
    }

    fn client_namespace(&self) -> String {
        format!("{}-c", self.name)
    }

    /// Where to pin; no bpffs is there before it is mounted.
    pub(crate) fn pin_directory(&self) -> &Path {
        &self.pin_directory
    }

    /// Runs the test on a thread in the server's namespace.
    pub(crate) fn in_server(&self, test: impl FnOnce(&Self) + Send) {
        in_namespace(&self.server_namespace(), || test(self));
    }

    /// Runs something on a thread in the client's namespace.
    pub(crate) fn in_client<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        in_namespace(&self.client_namespace(), work)
    }

    /// Sends one datagram from the client.
    pub(crate) fn send(&self, to: SocketAddr, payload: &[u8]) {
        self.in_client(|| {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a socket");
            socket.send_to(payload, to).expect("it is sent");
        });
    }

    /// Sends a datagram from the client, again and again, until the server's kernel socket has it. (A process that
    /// another test is just starting may hold a copy of an AF_XDP socket for a moment after it was closed.)
    pub(crate) fn deliver(&self, kernel: &UdpSocket, payload: &[u8]) {
        let to = kernel.local_addr().expect("it is bound");
        kernel.set_read_timeout(Some(Duration::from_millis(100))).expect("a time-out");
        let mut buffer = [0; 10_000];
        wait_for("the kernel to get the packet", || {
            self.send(to, payload);
            kernel.recv_from(&mut buffer).is_ok_and(|(length, _)| buffer[..length] == *payload)
        });
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        for namespace in [self.server_namespace(), self.client_namespace()] {
            let _ = Command::new("ip").args(["netns", "del", &namespace]).status();
        }
        // Mounted only by tests that pin.
        let _ = rustix::mount::unmount(&self.pin_directory, UnmountFlags::DETACH);
        assert!(self.pins.path().exists());
    }
}

/// Moves this thread into a namespace.
pub(crate) fn enter(namespace: &str) {
    let file =
        std::fs::File::open(Path::new("/var/run/netns").join(namespace)).expect("the namespace is there");
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
        .expect("it can be entered; needs root");
}

fn in_namespace<T: Send>(namespace: &str, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            enter(namespace);
            work()
        });
        match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// An AF_XDP socket, bound to nothing: enough for the program to redirect to.
pub(crate) fn xdp_socket() -> OwnedFd {
    let flags = SocketFlags::CLOEXEC;
    rustix::net::socket_with(AddressFamily::XDP, SocketType::RAW, flags, None).expect("an AF_XDP socket")
}

/// Runs a shell line; it must succeed.
pub(crate) fn run(line: &str) {
    let output = Command::new("sh").args(["-ec", line]).output().expect("a shell");
    assert!(
        output.status.success(),
        "{line}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Waits until something holds.
pub(crate) fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Attaches somebody else's program, by netlink as `ip link set xdp` does: it passes every packet.
pub(crate) fn attach_foreign_program(interface: &str) {
    const MOV64_IMM: u8 = 0xb7;
    const EXIT: u8 = 0x95;
    let instruction = |code, imm| libbpf_sys::bpf_insn { code, imm, ..Default::default() };
    let pass = [instruction(MOV64_IMM, 2), instruction(EXIT, 0)];
    // SAFETY: name and licence are C strings, `pass` holds as many instructions as are announced, all live through
    // the call, and a null pointer asks for the default options.
    let program = unsafe {
        libbpf_sys::bpf_prog_load(
            libbpf_sys::BPF_PROG_TYPE_XDP,
            c"alien".as_ptr(),
            c"GPL".as_ptr(),
            pass.as_ptr(),
            pass.len() as libbpf_sys::size_t,
            std::ptr::null_mut(),
        )
    };
    assert!(program >= 0, "the program loads: {program}");
    let index = rustix::net::netdevice::name_to_index(
        UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a socket"),
        interface,
    )
    .expect("the interface is there");
    let index = i32::try_from(index).expect("a small number");
    // SAFETY: the kernel just made the descriptor, so that nobody else owns it.
    let program = unsafe { OwnedFd::from_raw_fd(program) };
    let flags = libbpf_sys::XDP_FLAGS_DRV_MODE;
    // SAFETY: the program's descriptor is open, and a null pointer asks for the default options.
    let result = unsafe { libbpf_sys::bpf_xdp_attach(index, program.as_raw_fd(), flags, std::ptr::null()) };
    assert_eq!(result, 0, "the program is attached");
}
