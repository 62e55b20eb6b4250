//! The program itself; the decision table is at the top of the crate.
//!
//! | module | what it owns |
//! |---|---|
//! | [`maps`] | the maps, and typed access to them |
//! | [`context`] | the packet as the kernel hands it over |
//! | [`liveness`] | the dead-man's switch and the flows that stick to the companion socket |

mod context;
mod liveness;
mod maps;

use core::ptr;

use aya_ebpf::bindings::xdp_action;
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use dataplane_ebpf::layout::ServiceKey;
use dataplane_ebpf::packet::{self, Packet, Transport};
use dataplane_ebpf::verdict::{Action, Verdict};

use context::Frame;
use liveness::Liveness;

/// Entry point. `frags`: without it a driver refuses native mode on an MTU beyond one page.
#[xdp(frags)]
pub(crate) fn steer(context: XdpContext) -> u32 {
    let verdict = decide(&context);
    // The socket may have gone since it was looked for; the map then answers with the action given here.
    let verdict = match verdict {
        Verdict::Redirected if !maps::redirect(&context) => Verdict::NoSocket,
        verdict => verdict,
    };
    maps::count(verdict);
    match verdict.action() {
        Action::Redirect => xdp_action::XDP_REDIRECT,
        Action::Pass => xdp_action::XDP_PASS,
        Action::Drop => xdp_action::XDP_DROP,
    }
}

#[inline(always)]
fn decide(context: &XdpContext) -> Verdict {
    let frame = Frame::new(context);
    let packet = match packet::parse(&frame) {
        Ok(packet) => packet,
        Err(reason) => return reason.into(),
    };
    if packet.is_link_multicast() {
        return Verdict::Multicast;
    }
    let Some(service) = service_of(&packet) else { return Verdict::NoService };
    if !maps::source_is_allowed(service, packet.source) {
        // A program that outlived its daemon serves nobody, and so has nobody to keep a source from.
        return if maps::has_socket(context.rx_queue_index()) {
            Verdict::SourceDenied
        } else {
            Verdict::NoSocket
        };
    }
    if !frame.fits_a_frame() {
        return Verdict::TooLong;
    }
    match Liveness::of(context) {
        Liveness::Nobody => Verdict::NoSocket,
        Liveness::Stale { slot, now_ns } => liveness::decide_stale(slot, now_ns, &packet),
        Liveness::Alive { slot, now_ns } => liveness::decide_alive(slot, now_ns, &packet),
    }
}

/// Number of the service a packet is for: one on its very address before one on any.
#[inline(always)]
fn service_of(packet: &Packet) -> Option<u32> {
    let protocol = packet.transport.protocol();
    let port = packet.transport.destination_port();
    let value = maps::port(port)?;
    let served = match packet.transport {
        Transport::Udp(_) => &value.udp,
        Transport::Tcp(_) => &value.tcp,
    };
    // SAFETY: the map's memory. User space writes the word at any time, in one step: it is read once.
    let served = unsafe { ptr::read_volatile(served) };
    if served.has_exact() {
        if let Some(service) = maps::service(&ServiceKey::new(protocol, port, packet.destination)) {
            return Some(service);
        }
    }
    served.any()
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The program has no panicking path; the verifier would refuse this loop if one led here.
    loop {}
}
