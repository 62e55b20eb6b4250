//! The daemon over ordinary sockets: without a privilege, without a configuration, and in the place of a bypass that cannot
//! be had. Processes without capabilities are root's still, so that they can read the binary wherever it lies.

mod daemon_support;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::unix::process::CommandExt;
use std::process::Command;

use daemon_support::{BINARY, Family, PORT, Rig, SOON, UNAVAILABLE};
use dataplane::control::status::StatusReport;
use dataplane::testbed::daemon::http_get;
use dataplane::testbed::{Daemon, Namespace};

const RESP_PORT: u16 = 6_379;

/// The daemon's binary as a process that has no capability and can get none.
fn without_capabilities(namespace: &Namespace) -> Command {
    let mut command = namespace.command("setpriv");
    command.args(["--inh-caps=-all", "--bounding-set=-all", "--ambient-caps=-all", "--no-new-privs", BINARY]);
    command
}

fn start(namespace: &Namespace, arguments: &[&str]) -> Daemon {
    let mut command = without_capabilities(namespace);
    Daemon::start_by(namespace, command.args(arguments)).unwrap_or_else(|error| panic!("{error}"))
}

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// Asks over TCP from within the namespace; the reply.
fn ask(namespace: &Namespace, server: SocketAddr, request: &[u8], reply_bytes: usize) -> String {
    let ask = || {
        let mut stream = TcpStream::connect(server)?;
        stream.set_read_timeout(Some(SOON))?;
        stream.write_all(request)?;
        let mut reply = vec![0; reply_bytes];
        stream.read_exact(&mut reply)?;
        Ok::<_, std::io::Error>(String::from_utf8_lossy(&reply).into_owned())
    };
    namespace.run(ask).expect("the namespace").expect("a reply")
}

/// The same over UDP, with memcached's frame header.
fn ask_datagram(namespace: &Namespace, server: SocketAddr, request: &[u8]) -> String {
    let ask = || {
        let client = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        client.set_read_timeout(Some(SOON))?;
        client.connect(server)?;
        client.send(&[&[0, 1, 0, 0, 0, 1, 0, 0], request].concat())?;
        let mut reply = [0; 1_500];
        let length = client.recv(&mut reply)?;
        Ok::<_, std::io::Error>(String::from_utf8_lossy(&reply[8..length]).into_owned())
    };
    namespace.run(ask).expect("the namespace").expect("a reply")
}

fn transports(status: &StatusReport) -> Vec<(&str, Option<&str>)> {
    let of = status.listeners.iter();
    of.map(|listener| (listener.transport.as_str(), listener.fallback.as_deref())).collect()
}

#[test]
fn without_a_configuration_or_a_privilege_it_serves_both_protocols_on_loopback() {
    let namespace = Namespace::create("kernel").expect("root and iproute2");
    let mut daemon = start(&namespace, &["run"]);
    assert_eq!(ask(&namespace, local(PORT), b"set key 0 0 5\r\nvalue\r\n", 8), "STORED\r\n");
    assert_eq!(ask(&namespace, local(RESP_PORT), b"GET key\r\n", 11), "$5\r\nvalue\r\n");
    let reply = "VALUE key 0 5\r\nvalue\r\nEND\r\n";
    assert_eq!(ask_datagram(&namespace, local(PORT), b"get key\r\n"), reply);
    let status = daemon.status(&namespace).expect("it runs");
    assert_eq!(transports(&status), [("kernel", None); 3]);
    assert!(status.queues.is_empty() && status.verdicts.is_empty(), "{status:#?}");
    assert_eq!(status.workers[0].kernel_received, 1);
    assert!(daemon.stop().expect("it ends").success());
}

#[test]
fn it_moves_beside_others_and_says_who_has_a_port() {
    let namespace = Namespace::create("kernel").expect("root and iproute2");
    let _first = start(&namespace, &["run"]);
    let mut second = without_capabilities(&namespace);
    let refused = second.args(["run", "--set", "daemon.admin=127.0.0.1:9191"]).output().expect("it runs");
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{words}");
    for port in [PORT, RESP_PORT] {
        assert!(words.contains(&format!("port 127.0.0.1:{port} is taken by dataplane (pid ")), "{words}");
    }
    let mut third = without_capabilities(&namespace);
    third.args(["run", "--set", "daemon.admin=127.0.0.1:9191"]);
    third.args(["--set", "listen.memcached=127.0.0.2:11212", "--set", "listen.resp=127.0.0.2:6380"]);
    let mut third = dataplane::testbed::ChildGuard::spawn("the other daemon", &mut third).expect("it starts");
    let get_ready = || {
        let page = namespace.run(|| http_get("127.0.0.1:9191".parse().expect("an address"), "/status"))?;
        Ok(page.ok().filter(|page| page.contains("\"ready\":true")).map(|_| ()))
    };
    third
        .wait_for("the other daemon getting ready", SOON, get_ready)
        .unwrap_or_else(|error| panic!("{error}"));
    let other = SocketAddr::from(([127, 0, 0, 2], 6_380));
    assert_eq!(ask(&namespace, other, b"GET key\r\n", 5), "$-1\r\n");
}

#[test]
fn what_can_do_with_either_falls_back_and_says_so_everywhere() {
    let rig = Rig::new();
    let config = rig.config("", "", "transport = \"auto\"\nprotocol = \"tcp\"");
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("dataplane.toml");
    std::fs::write(&file, &config).expect("it is written");
    let file = file.to_str().expect("text");
    let mut daemon = start(&rig.pair.right, &["run", "--config", file]);
    let server = rig.server(Family::V4);
    assert_eq!(ask(&rig.pair.left, server, b"set key 0 0 5\r\nvalue\r\n", 8), "STORED\r\n");
    let status = daemon.status(&rig.pair.right).expect("it runs");
    let [("kernel", Some(reason))] = transports(&status)[..] else { panic!("{status:#?}") };
    assert!(reason.contains("CAP_"), "it names what is missing: {reason}");
    let log = daemon.child().output();
    assert!(log.contains("fell back to ordinary sockets: "), "{log}");
    rig.wait_for_metric(
        &format!(
            "dataplane_listener_info{{service=\"memcached\",protocol=\"tcp\",port=\"{PORT}\",transport=\"kernel\",fell_back=\"true\"}}"
        ),
        1,
    );
    drop(daemon);

    // With the privileges it passes the kernel by.
    let mut daemon = rig.start_with(&config);
    assert_eq!(ask(&rig.pair.left, server, b"set key 0 0 5\r\nvalue\r\n", 8), "STORED\r\n");
    let status = daemon.status(&rig.pair.right).expect("it runs");
    assert_eq!(transports(&status), [("bypass", None)]);
    assert_eq!(status.workers[0].kernel_tcp_events["accepted"], 0);
    drop(daemon);

    // What has to have it does not start without.
    let config = config.replace("\"auto\"", "\"bypass\"");
    std::fs::write(file, &config).expect("it is written");
    let refused =
        without_capabilities(&rig.pair.right).args(["run", "--config", file]).output().expect("it runs");
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("CAP_"), "{refused:?}");
}

#[test]
fn a_listener_of_each_kind_is_served_its_own_way_from_one_table() {
    let rig = Rig::new();
    let more = format!(
        "protocol = \"tcp\"\n[[listener]]\nservice = \"resp\"\nprotocol = \"tcp\"\ntransport = \"kernel\"\nport = {RESP_PORT}\n\
         allow = [\"10.77.0.0/24\"]"
    );
    let mut daemon = rig.start_with(&rig.config("", "", &more));
    let address = rig.server(Family::V4).ip();
    assert_eq!(
        ask(&rig.pair.left, SocketAddr::new(address, PORT), b"set key 0 0 1\r\nv\r\n", 8),
        "STORED\r\n"
    );
    assert_eq!(ask(&rig.pair.left, SocketAddr::new(address, RESP_PORT), b"GET key\r\n", 7), "$1\r\nv\r\n");
    let status = rig.wait_for_status(&mut daemon, "one connection each way", |status| {
        let worker = &status.workers[0];
        (worker.tcp_events["accepted"], worker.kernel_tcp_events["accepted"]) == (1, 1)
    });
    assert_eq!(transports(&status), [("bypass", None), ("kernel", None)]);
    rig.assert_no_frame_lost(&mut daemon);
}

#[test]
fn clients_of_a_frozen_daemon_are_told_and_served_again_after() {
    let namespace = Namespace::create("kernel").expect("root and iproute2");
    let daemon = start(&namespace, &["run"]);
    assert_eq!(ask(&namespace, local(PORT), b"set key 0 0 5\r\nvalue\r\n", 8), "STORED\r\n");
    daemon.freeze().unwrap_or_else(|error| panic!("{error}"));
    let told = ask(&namespace, local(PORT), b"get key\r\n", UNAVAILABLE.len());
    assert_eq!(told.as_bytes(), UNAVAILABLE);
    assert_eq!(ask_datagram(&namespace, local(PORT), b"get key\r\n").as_bytes(), UNAVAILABLE);
    daemon.thaw().expect("it goes on");
    let found = dataplane::testbed::wait_until("it serves again", SOON, || {
        let reply = ask(&namespace, local(PORT), b"get key\r\n", 8);
        Ok((reply == "VALUE ke").then_some(()))
    });
    found.unwrap_or_else(|error| panic!("{error}"));
}

/// Has the kernel refuse `io_uring_setup` to the command, as a container's seccomp profile does.
fn without_io_uring(command: &mut Command) -> &mut Command {
    const fn instruction(code: u32, jump_true: u8, jump_false: u8, k: u32) -> libc::sock_filter {
        libc::sock_filter { code: code as u16, jt: jump_true, jf: jump_false, k }
    }
    let refuse = move || {
        let filter = [
            // The number of the system call is the first word of `struct seccomp_data`.
            instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
            instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, libc::SYS_io_uring_setup as u32),
            instruction(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
            instruction(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
        ];
        let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
        // SAFETY: both calls take integers but for the program, which outlives the call and describes the filter beside it;
        // the kernel copies it.
        let refused = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
                && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) == 0
        };
        if refused { Ok(()) } else { Err(std::io::Error::last_os_error()) }
    };
    // SAFETY: the closure runs between fork and exec: it makes two system calls and neither allocates nor locks.
    unsafe { command.pre_exec(refuse) }
}

#[test]
fn without_io_uring_a_listener_of_ordinary_sockets_does_not_start_and_says_why() {
    let namespace = Namespace::create("kernel").expect("root and iproute2");
    let mut command = namespace.command(BINARY);
    let refused = without_io_uring(command.arg("run")).output().expect("it runs");
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{words}");
    assert!(
        words.contains("io_uring is not to be had") && words.contains("kernel.io_uring_disabled"),
        "{words}"
    );
}

#[test]
fn without_io_uring_what_passes_the_kernel_by_is_served_and_others_are_told() {
    let rig = Rig::new();
    let more = format!(
        "[[listener]]\nservice = \"memcached\"\nprotocol = \"tcp\"\nport = {PORT}\n\
         allow = [\"10.77.0.0/24\", \"127.0.0.0/8\"]"
    );
    let config = rig.config("", "", &more);
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("dataplane.toml");
    std::fs::write(&file, &config).expect("it is written");
    let mut command = rig.pair.right.command(BINARY);
    without_io_uring(command.args(["run", "--config"]).arg(&file));
    let mut daemon =
        Daemon::start_by(&rig.pair.right, &mut command).unwrap_or_else(|error| panic!("{error}"));
    let server = rig.server(Family::V4);
    assert_eq!(ask(&rig.pair.left, server, b"set key 0 0 5\r\nvalue\r\n", 8), "STORED\r\n");
    rig.client(Family::V4).assert_holds("key", "value");
    let told = ask(&rig.pair.right, local(PORT), b"get key\r\n", UNAVAILABLE.len());
    assert_eq!(told.as_bytes(), UNAVAILABLE);
    assert_eq!(ask_datagram(&rig.pair.right, local(PORT), b"get key\r\n").as_bytes(), UNAVAILABLE);
    let log = daemon.child().output();
    assert!(log.contains("io_uring is not to be had"), "{log}");
    rig.assert_no_frame_lost(&mut daemon);
    assert!(daemon.stop().expect("it ends").success());
}
