//! Segments that belong to no open flow: late ones of a flow that is over, those that open one, and strays.

use super::ends::{Ends, Link};
use super::flow::Stamps;
use super::handler::{Handler, Output};
use super::options::OptionsOut;
use super::segment::{ACK, Header, RST, SYN, Segment, write};
use super::sequence::Sequence;
use super::stack::Stack;
use crate::time::Now;

impl Stack {
    /// TIME-WAIT (RFC 9293 section 3.10.7.4). Resets are passed over (RFC 1337).
    pub(super) fn take_waiting<H: Handler, O: Output>(
        &mut self,
        now: Now,
        segment: &Segment<'_>,
        number: u32,
        handler: &mut H,
        out: &mut O,
    ) {
        let waiting = *self.waiting.get(number);
        let stamp = segment.options.timestamps.map(|timestamps| timestamps.value);
        if segment.flags.opens() && waiting.gives_way_to(segment.sequence, stamp) {
            self.forget_waiting(number);
            self.take_syn(now, segment, waiting.hash, handler, out);
            return;
        }
        if segment.has(RST) || segment.length() == 0 {
            self.statistics.stray += 1;
            return;
        }
        let mut options = OptionsOut::default();
        if let Some(echo) = waiting.stamp {
            let offset = self.secret.timestamp_offset(&waiting.ends);
            options =
                options.timestamps(Stamps::new(offset, echo, 0, waiting.peers).option(now.monotonic_ns));
        }
        let header = Header {
            sequence: waiting.ours,
            acknowledgement: waiting.peers,
            flags: ACK,
            window: 0,
            options: &options,
        };
        self.send_bare(&Link::answering(segment.link), &segment.ends, &header, out);
    }

    pub(super) fn take_stray<H: Handler, O: Output>(
        &mut self,
        now: Now,
        segment: &Segment<'_>,
        hash: u32,
        handler: &mut H,
        out: &mut O,
    ) {
        if segment.flags.opens() {
            self.take_syn(now, segment, hash, handler, out);
        } else if !self.take_cookie(now, segment, hash, handler, out) {
            self.statistics.stray += 1;
            if !segment.has(RST) {
                self.refuse(now, segment, out);
            }
        }
    }

    /// Answers a segment with a reset (RFC 9293 section 3.10.7.1), but not every one of a flood.
    pub(super) fn refuse<O: Output>(&mut self, now: Now, segment: &Segment<'_>, out: &mut O) {
        if !self.resets.take(now.monotonic_ns) {
            self.statistics.resets_withheld += 1;
            return;
        }
        let (sequence, acknowledgement, flags) = if segment.has(ACK) {
            (segment.acknowledgement, Sequence(0), RST)
        } else {
            (Sequence(0), segment.sequence.plus(segment.length()), RST | ACK)
        };
        let header = Header { sequence, acknowledgement, flags, window: 0, options: &OptionsOut::default() };
        self.statistics.resets_out += 1;
        self.send_bare(&Link::answering(segment.link), &segment.ends, &header, out);
    }

    /// Sends a segment without data that belongs to no open flow. Without room it is given up: whoever waits for it
    /// asks again.
    pub(super) fn send_bare<O: Output>(
        &mut self,
        link: &Link,
        ends: &Ends,
        header: &Header<'_>,
        out: &mut O,
    ) {
        debug_assert!(header.flags & (RST | ACK | SYN) != 0);
        if out.frame(|room| write(room, link, ends, header, 0, |_| ())) {
            self.statistics.frames_out += 1;
        } else {
            self.statistics.no_output += 1;
        }
    }
}
