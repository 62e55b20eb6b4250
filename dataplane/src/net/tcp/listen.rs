//! Flows that peers open: SYN-RECEIVED (RFC 9293 section 3.10.7.2 to .4). A handshake under way is a compact record;
//! when all of these are taken a SYN is answered with a cookie instead (RFC 4987 section 3.6), which needs none. A
//! working client opens its flow either way: a flood costs it nothing but, without timestamps, window scaling and
//! selective acknowledgements.

use super::config::Config;
use super::ends::{Ends, Link};
use super::flow::{Flow, Stamps, stamp};
use super::handler::{Admission, Handler, Output};
use super::input::segment_bytes;
use super::options::{Options, OptionsOut, Timestamps};
use super::output::syn_window;
use super::receive::Receiver;
use super::segment::{ACK, Header, RST, SYN, Segment};
use super::send::Sender;
use super::sequence::Sequence;
use super::stack::Stack;
use super::table::Place;
use crate::time::Now;

/// After the last cookie acknowledgements are looked at as if they brought one, for this long.
const COOKIE_LIFE_NS: u64 = 64 * 1_000_000_000;
/// A SYN answered is answered again after this, and after twice that, and so on.
const REPEAT_NS: u64 = 1_000_000_000;
/// Low bits of the timestamp in a cookie's SYN: whether selective acknowledgements may be used, and the peer's shift.
const COOKIE_STAMP_BITS: u32 = 5;
const COOKIE_SACK: u32 = 1 << 4;
const COOKIE_NO_SHIFT: u32 = 15;

/// What a peer's SYN said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Offer {
    segment_bytes: Option<u16>,
    window_shift: Option<u8>,
    sack: bool,
    stamp: Option<u32>,
}

impl Offer {
    fn of(options: &Options, config: &Config) -> Self {
        Self {
            segment_bytes: options.segment_bytes,
            window_shift: options.window_shift,
            sack: options.sack_permitted && config.selective,
            stamp: options.timestamps.map(|timestamps| timestamps.value).filter(|_| config.timestamps),
        }
    }

    fn options(&self) -> Options {
        Options {
            segment_bytes: self.segment_bytes,
            window_shift: self.window_shift,
            sack_permitted: self.sack,
            timestamps: self.stamp.map(|value| Timestamps { value, echo: 0 }),
            ..Options::default()
        }
    }
}

/// A handshake under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct HalfOpen {
    pub(super) ends: Ends,
    hash: u32,
    link: Link,
    /// The two initial sequence numbers.
    ours: Sequence,
    pub(super) peers: Sequence,
    offer: Offer,
    since_ns: u64,
    /// Answers sent.
    answers: u8,
}

impl HalfOpen {
    pub(super) fn unused() -> Self {
        let nobody = std::net::SocketAddr::from(([0, 0, 0, 0], 0));
        Self {
            ends: Ends::new(nobody, nobody),
            hash: 0,
            link: Link::NONE,
            ours: Sequence(0),
            peers: Sequence(0),
            offer: Offer::default(),
            since_ns: 0,
            answers: 0,
        }
    }
}

/// The answer to a SYN.
struct SynAnswer<'a> {
    ends: &'a Ends,
    link: &'a Link,
    ours: Sequence,
    peers: Sequence,
    offer: &'a Offer,
    stamp: u32,
}

impl Stack {
    /// A SYN to nobody we know yet.
    pub(super) fn take_syn<H: Handler, O: Output>(
        &mut self,
        now: Now,
        segment: &Segment<'_>,
        hash: u32,
        handler: &mut H,
        out: &mut O,
    ) {
        match handler.admit(segment.ends.local(), segment.ends.peer()) {
            Admission::Accept => {}
            Admission::Ignore => {
                self.statistics.not_admitted += 1;
                return;
            }
            Admission::Refuse => {
                self.statistics.not_admitted += 1;
                self.refuse(now, segment, out);
                return;
            }
        }
        if self.flows.available() == 0 {
            // The peer asks again: a flow may have ended by then.
            self.statistics.no_flow += 1;
            return;
        }
        let offer = Offer::of(&segment.options, &self.config);
        let ends = segment.ends;
        let link = Link::answering(segment.link);
        let now_ns = now.monotonic_ns;
        let Some(number) = self.half_open.take() else {
            self.answer_with_cookie(segment, &offer, &link, now_ns, out);
            return;
        };
        let ours = self.secret.initial_sequence(&ends, now_ns);
        *self.half_open.get_mut(number) =
            HalfOpen { ends, hash, link, ours, peers: segment.sequence, offer, since_ns: now_ns, answers: 0 };
        self.table.insert(hash, Place::HalfOpen(number));
        self.answer_syn(number, now_ns, out);
    }

    /// Sends the SYN of a handshake under way, and sets the time for the next.
    fn answer_syn<O: Output>(&mut self, number: u32, now_ns: u64, out: &mut O) {
        let record = self.half_open.get_mut(number);
        let wait_ns = REPEAT_NS << record.answers.min(16);
        record.answers = record.answers.saturating_add(1);
        let due_ns = (now_ns + wait_ns).min(record.since_ns + self.config.half_open_ns);
        let record = *record;
        self.wheel.set(self.half_open_timer(number), now_ns, due_ns.max(now_ns + 1));
        let stamp = stamp(self.secret.timestamp_offset(&record.ends), now_ns);
        self.send_syn_answer(
            &SynAnswer {
                ends: &record.ends,
                link: &record.link,
                ours: record.ours,
                peers: record.peers,
                offer: &record.offer,
                stamp,
            },
            out,
        );
    }

    fn answer_with_cookie<O: Output>(
        &mut self,
        segment: &Segment<'_>,
        offer: &Offer,
        link: &Link,
        now_ns: u64,
        out: &mut O,
    ) {
        let ends = &segment.ends;
        let bytes = offer.segment_bytes.unwrap_or(0);
        let ours = self.secret.cookie(ends, segment.sequence, bytes, now_ns);
        // What the number has no room for rides in the timestamp, which the peer echoes. It must not be later than
        // those of the segments that follow.
        let clock = stamp(self.secret.timestamp_offset(ends), now_ns);
        let shift = offer.window_shift.map_or(COOKIE_NO_SHIFT, u32::from);
        let said = shift | if offer.sack { COOKIE_SACK } else { 0 };
        let stamp = ((clock >> COOKIE_STAMP_BITS).wrapping_sub(1) << COOKIE_STAMP_BITS) | said;
        let mut offer = *offer;
        if offer.stamp.is_none() {
            // Nothing would remember them.
            (offer.window_shift, offer.sack) = (None, false);
        }
        self.cookies_until_ns = now_ns + COOKIE_LIFE_NS;
        self.statistics.cookies_sent += 1;
        self.send_syn_answer(
            &SynAnswer { ends, link, ours, peers: segment.sequence, offer: &offer, stamp },
            out,
        );
    }

    fn send_syn_answer<O: Output>(&mut self, answer: &SynAnswer<'_>, out: &mut O) {
        let segment_bytes = self.config.segment_bytes(answer.ends.is_v4());
        let mut options = OptionsOut::default().segment_bytes(segment_bytes);
        if answer.offer.window_shift.is_some() {
            options = options.window_shift(self.config.window_shift());
        }
        if answer.offer.sack {
            options = options.sack_permitted();
        }
        if let Some(echo) = answer.offer.stamp {
            options = options.timestamps(Timestamps { value: answer.stamp, echo });
        }
        let header = Header {
            sequence: answer.ours,
            acknowledgement: answer.peers.plus(1),
            flags: SYN | ACK,
            window: syn_window(self.config.window_bytes),
            options: &options,
        };
        self.send_bare(answer.link, answer.ends, &header, out);
    }

    /// A segment between the ends of a handshake under way.
    pub(super) fn take_half_open<H: Handler, O: Output>(
        &mut self,
        now: Now,
        segment: &Segment<'_>,
        number: u32,
        handler: &mut H,
        out: &mut O,
    ) {
        let record = *self.half_open.get(number);
        if segment.has(RST) {
            // RFC 5961 section 3.2: only one that is exact is believed.
            if segment.sequence == record.peers.plus(1) {
                self.drop_half_open(number);
            } else {
                self.statistics.out_of_window += 1;
            }
            return;
        }
        if segment.has(SYN) {
            if segment.sequence == record.peers && !segment.has(ACK) {
                self.answer_syn(number, now.monotonic_ns, out);
            } else {
                // From an earlier life of the peer, or forged: say where we stand (RFC 5961 section 4.2).
                self.statistics.out_of_window += 1;
                let header = Header {
                    sequence: record.ours.plus(1),
                    acknowledgement: record.peers.plus(1),
                    flags: ACK,
                    window: 0,
                    options: &OptionsOut::default(),
                };
                self.send_bare(&record.link, &record.ends, &header, out);
            }
            return;
        }
        if !segment.has(ACK) {
            return;
        }
        if segment.acknowledgement != record.ours.plus(1) {
            self.statistics.bad_acknowledgement += 1;
            self.refuse(now, segment, out);
            return;
        }
        let window = u32::from(syn_window(self.config.window_bytes));
        if segment.sequence.since(record.peers.plus(1)) > window {
            self.statistics.out_of_window += 1;
            return;
        }
        if self.flows.available() == 0 {
            // It waits for a flow to end, and is asked again with the next segment or our next SYN.
            self.statistics.no_flow += 1;
            return;
        }
        let trip_ns = (record.answers == 1).then(|| now.monotonic_ns.saturating_sub(record.since_ns));
        self.drop_half_open(number);
        self.establish(
            now,
            segment,
            record.hash,
            (record.ours, record.peers),
            &record.offer,
            trip_ns,
            handler,
            out,
        );
    }

    fn drop_half_open(&mut self, number: u32) {
        let record = self.half_open.get(number);
        self.table.remove(record.hash, Place::HalfOpen(number));
        let timer = self.half_open_timer(number);
        self.wheel.cancel(timer);
        self.half_open.give(number);
    }

    /// The time of a handshake under way has come: the SYN is sent again, or it is given up.
    pub(super) fn half_open_is_due<O: Output>(&mut self, number: u32, now_ns: u64, out: &mut O) {
        if now_ns >= self.half_open.get(number).since_ns + self.config.half_open_ns {
            self.statistics.half_open_expired += 1;
            self.drop_half_open(number);
        } else {
            self.answer_syn(number, now_ns, out);
        }
    }

    /// An acknowledgement to nobody we know may bring back a cookie. Returns false when it does not.
    pub(super) fn take_cookie<H: Handler, O: Output>(
        &mut self,
        now: Now,
        segment: &Segment<'_>,
        hash: u32,
        handler: &mut H,
        out: &mut O,
    ) -> bool {
        if now.monotonic_ns > self.cookies_until_ns || !segment.has(ACK) || segment.has(SYN | RST) {
            return false;
        }
        let (ours, peers) = (segment.acknowledgement.minus(1), segment.sequence.minus(1));
        let Some(bytes) = self.secret.open_cookie(&segment.ends, peers, ours, now.monotonic_ns) else {
            return false;
        };
        if self.flows.available() == 0 {
            // The peer repeats what it sent: a cookie is good for a while.
            self.statistics.no_flow += 1;
            return true;
        }
        self.statistics.cookies_opened += 1;
        let mut offer = Offer { segment_bytes: Some(bytes), ..Offer::default() };
        if let Some(timestamps) = segment.options.timestamps.filter(|_| self.config.timestamps) {
            let said = timestamps.echo & ((1 << COOKIE_STAMP_BITS) - 1);
            let shift = said & COOKIE_NO_SHIFT;
            offer.window_shift = (shift != COOKIE_NO_SHIFT).then_some(shift as u8);
            offer.sack = said & COOKIE_SACK != 0;
            offer.stamp = Some(timestamps.value);
        }
        self.establish(now, segment, hash, (ours, peers), &offer, None, handler, out);
        true
    }

    /// The handshake is over and a flow is free: it begins, with the segment that ended the handshake.
    #[expect(clippy::too_many_arguments, reason = "a handshake is what it is")]
    fn establish<H: Handler, O: Output>(
        &mut self,
        now: Now,
        segment: &Segment<'_>,
        hash: u32,
        (ours, peers): (Sequence, Sequence),
        offer: &Offer,
        trip_ns: Option<u64>,
        handler: &mut H,
        out: &mut O,
    ) {
        let number = self.flows.take().expect("a free flow was there just now");
        let now_ns = now.monotonic_ns;
        let v4 = segment.ends.is_v4();
        let (ours, peers) = (ours.plus(1), peers.plus(1));
        let bytes = segment_bytes(&self.config, v4, offer.segment_bytes, offer.stamp.is_some());
        let sender = Sender::new(&self.config, ours, bytes);
        let receiver = Receiver::new(peers, self.config.window_shift());
        let link = Link::answering(segment.link);
        let stamps = offer
            .stamp
            .map(|recent| Stamps::new(self.secret.timestamp_offset(&segment.ends), recent, now_ns, peers));
        self.begin(number, hash, |flow: &mut Flow| {
            flow.begin(segment.ends, hash, link, sender, receiver, now_ns);
            flow.stamps = stamps;
        });
        self.statistics.accepted += 1;
        self.with_flow(now_ns, number, |flow, env, id| {
            flow.agree(env, &offer.options(), peers);
            let window = u32::from(segment.window) << flow.sender.shift;
            flow.sender.open_window(segment.sequence, segment.acknowledgement, window);
            if let Some(trip_ns) = trip_ns {
                flow.sender.trip.sample(now_ns, trip_ns, env.config.timeout_min_ns);
            }
            flow.open(env, id, handler);
        });
        self.take_flow_segment(now, segment, number, handler, out);
    }
}
