//! The steering program: which packets go to user space, which to the kernel, and which nowhere.
//!
//! It decides top to bottom; the first line that fits is the verdict.
//!
//! | the packet | verdict | action |
//! |---|---|---|
//! | cannot be parsed: cut short, contradictory, not IP, a third VLAN tag, a fragment, an IPv6 extension header, neither UDP nor TCP | the reason's own | pass |
//! | goes to a multicast or broadcast MAC address | `pass_multicast` | pass |
//! | no service on its protocol, port and address, nor on its protocol, port and any address | `pass_no_service` | pass |
//! | its source is not on the service's allow-list: its queue has a socket | `drop_source_denied` | drop |
//! | not on the allow-list: no socket | `pass_no_socket` | pass |
//! | longer than a UMEM frame, or in several buffers | `pass_too_long` | pass |
//! | nobody serves its queue: no socket, or no heartbeat yet | `pass_no_socket` | pass |
//! | the worker is **stale**: UDP | `pass_stale`, and the flow sticks | pass |
//! | stale: TCP, the connection sticks to the companion | `pass_sticky` | pass |
//! | stale: TCP SYN | `pass_stale_syn`, and the flow sticks | pass |
//! | stale: any other TCP segment | `drop_stale_segment` | drop |
//! | the worker is **alive**: a datagram of a flow that was passed less than [`STICKY_UDP_NS`] ago | `pass_sticky` | pass |
//! | alive: a TCP segment of a connection that sticks; it goes on doing so until it has been idle for [`STICKY_TCP_NS`] | `pass_sticky` | pass |
//! | alive: everything else | `redirected` | redirect |
//!
//! Why a denied source is dropped before anything may pass: passing would hand it to the companion socket, whose time
//! it is not worth. Why it passes all the same where no socket is: a pinned program outlives its daemon, and all traffic
//! then belongs to the kernel. Why no SYN or RST frees a connection that sticks: anybody can forge one, and only who
//! holds the connection can tell. Why a socket is asked for before a segment is dropped: the clients of a process that died are
//! better off with the kernel's reset. Why sticky flows cost nothing in the normal case: the queue's slot, which is
//! read for the heartbeat anyway, says whether there are any.
//!
//! [`STICKY_UDP_NS`]: dataplane_ebpf::layout::STICKY_UDP_NS
//! [`STICKY_TCP_NS`]: dataplane_ebpf::layout::STICKY_TCP_NS
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
mod program;

/// The program is built for the kernel alone: `cargo xtask build-ebpf`.
#[cfg(not(target_arch = "bpf"))]
fn main() {}
