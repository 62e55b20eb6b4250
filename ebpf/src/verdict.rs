//! What became of a packet, and why. Each verdict has a per-CPU counter in the map
//! [`COUNTERS`](crate::layout::COUNTERS), under its own number.

use crate::packet::Unparsed;

/// What the kernel is told to do with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Hand it to the AF_XDP socket of the queue it came in on.
    Redirect,
    /// Let the kernel's stack have it.
    Pass,
    /// Drop it.
    Drop,
}

/// Declares the verdicts, so that number, action and label of each stand in one line.
macro_rules! verdicts {
    ($($(#[$inner:meta])* $variant:ident => $action:ident, $label:literal;)+) => {
        /// What became of a packet, and why.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        pub enum Verdict { $($(#[$inner])* $variant,)+ }

        impl Verdict {
            /// Every verdict, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// What the kernel is told to do.
            #[inline(always)]
            #[must_use]
            pub const fn action(self) -> Action {
                match self { $(Self::$variant => Action::$action,)+ }
            }

            /// The label in metrics and `status`.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)+ }
            }
        }
    };
}

verdicts! {
    /// Given to the worker's socket, which still may have no room for it.
    Redirected => Redirect, "redirected";
    /// The packet ends inside one of its headers, or before what they announce.
    Truncated => Pass, "pass_truncated";
    /// Lengths or versions in its headers contradict each other.
    Malformed => Pass, "pass_malformed";
    /// Neither IPv4 nor IPv6.
    NotIp => Pass, "pass_not_ip";
    /// More than two VLAN tags.
    VlanDepth => Pass, "pass_vlan_depth";
    /// A fragment, the first one too: it takes the kernel's reassembly to make a datagram of it.
    Fragment => Pass, "pass_fragment";
    /// IPv6 with an extension header other than the fragment header.
    Ipv6Extension => Pass, "pass_ipv6_extension";
    /// Neither UDP nor TCP.
    OtherProtocol => Pass, "pass_other_protocol";
    /// Sent to a broadcast or multicast MAC address. Answering would let one packet draw replies from many hosts.
    Multicast => Pass, "pass_multicast";
    /// No service on that protocol, port and address.
    NoService => Pass, "pass_no_service";
    /// For a service, but longer than a UMEM frame, or in several buffers: kernels before 6.6 drop those on their way to
    /// an AF_XDP socket, and zero-copy drivers would hand them over in several frames.
    TooLong => Pass, "pass_too_long";
    /// For a service, but nobody serves the queue: no AF_XDP socket is registered (its process died, or never was),
    /// or its worker has yet to beat for the first time.
    NoSocket => Pass, "pass_no_socket";
    /// A datagram for a worker that is stale; the companion socket answers it.
    Stale => Pass, "pass_stale";
    /// A connection attempt to a worker that is stale; the companion socket takes the connection.
    StaleSyn => Pass, "pass_stale_syn";
    /// The flow went to the companion socket while the worker was stale, and stays there.
    Sticky => Pass, "pass_sticky";
    /// For a service whose allow-list does not hold the source. Not passed: the companion socket would get it. (With no
    /// AF_XDP socket on the queue there is no daemon to protect, and it is passed as [`Verdict::NoSocket`].)
    SourceDenied => Drop, "drop_source_denied";
    /// A segment of a connection that the stale worker holds. Dropped, so that the client sends it again; passed,
    /// the kernel would reset a connection it does not know.
    StaleSegment => Drop, "drop_stale_segment";
}

/// How many verdicts there are.
pub const VERDICTS: u32 = Verdict::ALL.len() as u32;

impl From<Unparsed> for Verdict {
    #[inline(always)]
    fn from(reason: Unparsed) -> Self {
        match reason {
            Unparsed::Truncated => Self::Truncated,
            Unparsed::Malformed => Self::Malformed,
            Unparsed::NotIp => Self::NotIp,
            Unparsed::VlanDepth => Self::VlanDepth,
            Unparsed::Fragment => Self::Fragment,
            Unparsed::Ipv6Extension => Self::Ipv6Extension,
            Unparsed::OtherProtocol => Self::OtherProtocol,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_dense_and_labels_differ() {
        for (index, verdict) in Verdict::ALL.iter().enumerate() {
            assert_eq!(*verdict as usize, index);
            assert_eq!(
                Verdict::ALL.iter().filter(|other| other.label() == verdict.label()).count(),
                1,
                "{} names one verdict",
                verdict.label(),
            );
        }
    }

    #[test]
    fn whatever_cannot_be_parsed_goes_on_to_the_kernel() {
        for reason in Unparsed::ALL {
            assert_eq!(Verdict::from(*reason).action(), Action::Pass);
        }
    }
}
