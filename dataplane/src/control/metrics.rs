//! `/metrics`: what the workers count, in the OpenMetrics text format that Prometheus reads.
//!
//! A [`Collector`] reads the workers' own counters while it writes the answer, so that counting costs a worker
//! nothing more than its plain store.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::state::DaemonState;
use crate::metrics::{
    Counter, DropReason, KERNEL_TCP_EVENTS, LatencyHistogram, OpKind, TcpEvent, WorkerMetrics,
};
use crate::time::{MS_PER_S, NS_PER_S};

/// The format's media type (OpenMetrics 1.0, section "Protocol Negotiation").
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Every metric's name starts with this.
const PREFIX: &str = "dataplane";

/// Reads one count of a worker.
type Read = fn(&WorkerMetrics) -> &Counter;

const COUNTERS: &[(&str, &str, Read)] = &[
    ("frames_received", "Frames received", |m| &m.frames_received),
    ("frames_sent", "Frames handed to the TX ring", |m| &m.frames_sent),
    ("kernel_datagrams_received", "Datagrams received on ordinary sockets", |m| &m.kernel_received),
    ("kernel_datagrams_sent", "Datagrams sent from ordinary sockets", |m| &m.kernel_sent),
    ("hits", "Reads that found their item", |m| &m.hits),
    ("misses", "Reads that did not find their item", |m| &m.misses),
    ("polls_busy", "Polls that found work", |m| &m.polls_busy),
    ("polls_idle", "Polls that found none", |m| &m.polls_idle),
    ("sleeps", "Times the worker went to sleep", |m| &m.sleeps),
    ("fill_ring_empty", "Times the kernel found no free frame to receive into", |m| &m.fill_ring_empty),
    ("rebinds", "Times a queue had to be bound again", |m| &m.rebinds),
    ("evictions", "Items evicted to make room", |m| &m.evictions),
];

/// Counted in nanoseconds, told in seconds.
const TIMES: &[(&str, &str, Read)] = &[
    ("busy_seconds", "Time in polls that found work", |m| &m.busy_ns),
    ("idle_seconds", "Time in polls that found none", |m| &m.idle_ns),
    ("asleep_seconds", "Time asleep", |m| &m.asleep_ns),
];

const GAUGES: &[(&str, &str, Read)] = &[
    ("frames", "Frames the UMEMs have", |m| &m.frames_total),
    ("frames_lost", "Frames nobody has, zero unless there is a bug", |m| &m.frames_lost),
    ("items", "Items live", |m| &m.items),
    ("live_bytes", "Bytes of keys and values live", |m| &m.live_bytes),
    ("used_bytes", "Bytes of arena in use", |m| &m.used_bytes),
    ("capacity_bytes", "Bytes of arena and index", |m| &m.capacity_bytes),
    ("tcp_connections", "TCP connections open", |m| &m.tcp_connections),
    ("kernel_connections", "Connections open on ordinary sockets", |m| &m.kernel_connections),
    ("table_huge_pages", "1 when arena and index lie in huge pages", |m| &m.table_huge_pages),
];

/// Writes `/metrics`.
#[derive(Debug)]
pub struct Exposition(Registry);

impl Exposition {
    /// Of this daemon.
    #[must_use]
    pub fn new(state: Arc<DaemonState>) -> Self {
        let mut registry = Registry::with_prefix(PREFIX);
        registry.register_collector(Box::new(StateCollector(state)));
        Self(registry)
    }

    /// The whole text.
    ///
    /// # Errors
    /// Never, as long as writing to memory does not fail.
    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.0)?;
        Ok(text)
    }
}

#[derive(Debug)]
struct StateCollector(Arc<DaemonState>);

impl Collector for StateCollector {
    fn encode(&self, mut out: DescriptorEncoder<'_>) -> fmt::Result {
        self.daemon(&mut out)?;
        self.workers(&mut out)?;
        self.latency(&mut out)?;
        self.queues(&mut out)?;
        self.listeners(&mut out)?;
        self.verdicts(&mut out)
    }
}

impl StateCollector {
    fn daemon(&self, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
        out.encode_descriptor("build", "The daemon's version", None, MetricType::Info)?
            .encode_info(&[("version", env!("CARGO_PKG_VERSION"))])?;
        let mut ready =
            out.encode_descriptor("ready", "1 while every worker serves", None, MetricType::Gauge)?;
        ready.encode_gauge(&u64::from(self.0.is_healthy()))?;
        let mut uptime =
            out.encode_descriptor("uptime_seconds", "Time since start", None, MetricType::Gauge)?;
        uptime.encode_gauge(&self.0.uptime_s())
    }

    fn workers(&self, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
        for &(name, help, read) in COUNTERS {
            let mut family = out.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (worker, metrics) in self.each() {
                counter(&mut family, &[("worker", worker)], read(metrics).get())?;
            }
        }
        for &(name, help, read) in TIMES {
            let mut family = out.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (worker, metrics) in self.each() {
                let time = ConstCounter::new(seconds(read(metrics).get()));
                time.encode(family.encode_family(&[("worker", worker)])?)?;
            }
        }
        for &(name, help, read) in GAUGES {
            let mut family = out.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (worker, metrics) in self.each() {
                family.encode_family(&[("worker", worker)])?.encode_gauge(&read(metrics).get())?;
            }
        }
        let mut age = out.encode_descriptor(
            "heartbeat_age_seconds",
            "Time since the worker's last beat",
            None,
            MetricType::Gauge,
        )?;
        for (plan, _) in self.0.workers() {
            let seconds = self.0.heartbeat_age_ms(plan.worker) as f64 / MS_PER_S as f64;
            let labels = [("worker", plan.worker.to_string()), ("core", plan.core.to_string())];
            ConstGauge::new(seconds).encode(age.encode_family(&labels)?)?;
        }
        let mut requests =
            out.encode_descriptor("requests", "Requests by operation", None, MetricType::Counter)?;
        for (worker, metrics) in self.each() {
            for &kind in OpKind::ALL {
                counter(
                    &mut requests,
                    &[("worker", worker.clone()), ("op", kind.label().to_owned())],
                    metrics.requests(kind),
                )?;
            }
        }
        let mut drops = out.encode_descriptor(
            "drops",
            "Frames and requests dropped, by reason",
            None,
            MetricType::Counter,
        )?;
        for (worker, metrics) in self.each() {
            for &reason in DropReason::ALL {
                counter(
                    &mut drops,
                    &[("worker", worker.clone()), ("reason", reason.label().to_owned())],
                    metrics.drops(reason),
                )?;
            }
        }
        let mut events =
            out.encode_descriptor("tcp_events", "What happened in TCP", None, MetricType::Counter)?;
        for (worker, metrics) in self.each() {
            for &event in TcpEvent::ALL {
                counter(
                    &mut events,
                    &[("worker", worker.clone()), ("event", event.label().to_owned())],
                    metrics.tcp_events(event),
                )?;
            }
        }
        let help = "Who came and went on ordinary sockets";
        let mut events = out.encode_descriptor("kernel_tcp_events", help, None, MetricType::Counter)?;
        for (worker, metrics) in self.each() {
            for event in KERNEL_TCP_EVENTS {
                counter(
                    &mut events,
                    &[("worker", worker.clone()), ("event", event.label().to_owned())],
                    metrics.kernel_tcp_events(event),
                )?;
            }
        }
        Ok(())
    }

    fn latency(&self, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Time from a batch's arrival in user space to its replies' doorbell";
        let mut family = out.encode_descriptor("latency_seconds", help, None, MetricType::Histogram)?;
        for (worker, metrics) in self.each() {
            let (buckets, count) = buckets_in_seconds(&metrics.latency);
            let sum = seconds(metrics.latency.sum_ns());
            let labels = [("worker", worker)];
            let mut metric = family.encode_family(&labels)?;
            metric.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
        }
        Ok(())
    }

    fn queues(&self, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let queues = self.0.queues();
        let mut family =
            out.encode_descriptor("queue", "How each NIC queue is served", None, MetricType::Info)?;
        for queue in &queues {
            family.encode_info(&[
                ("interface", queue.interface.clone()),
                ("queue", queue.queue.to_string()),
                ("worker", queue.worker.to_string()),
                ("xdp_mode", queue.xdp_mode.clone()),
                ("copy_mode", queue.copy_mode.clone()),
                ("attachment", queue.attachment.clone()),
                ("huge_pages", queue.huge_pages.to_string()),
                ("fell_back", queue.fallback.is_some().to_string()),
            ])?;
        }
        let help = "How often the XDP program found the queue's worker stale";
        let mut episodes = out.encode_descriptor("queue_stale_episodes", help, None, MetricType::Counter)?;
        for queue in &queues {
            let labels = [("interface", queue.interface.clone()), ("queue", queue.queue.to_string())];
            counter(&mut episodes, &labels, queue.stale_episodes)?;
        }
        let mut up =
            out.encode_descriptor("queue_up", "1 while the queue is served", None, MetricType::Gauge)?;
        for queue in &queues {
            let labels = [("interface", queue.interface.clone()), ("queue", queue.queue.to_string())];
            up.encode_family(&labels)?.encode_gauge(&u64::from(queue.state == "up"))?;
        }
        Ok(())
    }

    fn verdicts(&self, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Packets the XDP program saw, by what it did with them and why";
        let mut family = out.encode_descriptor("xdp_packets", help, None, MetricType::Counter)?;
        for (interface, verdicts) in self.0.verdicts() {
            for (verdict, count) in verdicts {
                counter(&mut family, &[("interface", interface.clone()), ("verdict", verdict)], count)?;
            }
        }
        Ok(())
    }

    fn listeners(&self, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let mut family =
            out.encode_descriptor("listener", "Which way a listener's packets come", None, MetricType::Info)?;
        for listener in self.0.listeners() {
            family.encode_info(&[
                ("service", listener.service),
                ("protocol", listener.protocol),
                ("port", listener.port.to_string()),
                ("transport", listener.transport),
                ("fell_back", listener.fallback.is_some().to_string()),
            ])?;
        }
        Ok(())
    }

    fn each(&self) -> impl Iterator<Item = (String, &WorkerMetrics)> {
        self.0.workers().iter().map(|(plan, metrics)| (plan.worker.to_string(), &**metrics))
    }
}

fn counter<const N: usize>(
    family: &mut MetricEncoder<'_>,
    labels: &[(&str, String); N],
    value: u64,
) -> fmt::Result {
    ConstCounter::new(value).encode(family.encode_family(labels)?)
}

/// Each bucket's upper bound in seconds with its own count (the encoder adds them up), and the count of all. The
/// count is made of the buckets as they were read, so that the two agree while the worker goes on counting.
fn buckets_in_seconds(histogram: &LatencyHistogram) -> (Vec<(f64, u64)>, u64) {
    // A bucket's bound is exclusive and Prometheus's is inclusive; one nanosecond less is exact for whole ones.
    let mut buckets: Vec<(f64, u64)> =
        histogram.buckets().map(|(bound_ns, count)| (seconds(bound_ns - 1), count)).collect();
    let count = buckets.iter().map(|&(_, count)| count).sum();
    // The last one also takes what is longer than all bounds.
    if let Some((bound, _)) = buckets.last_mut() {
        *bound = f64::INFINITY;
    }
    (buckets, count)
}

fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / NS_PER_S as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::heartbeat::Heartbeats;
    use crate::control::status::{ListenerStatus, QueueStatus};
    use crate::topology::WorkerPlan;

    struct Never;

    impl Heartbeats for Never {
        fn heartbeat_ns(&self, _: usize) -> u64 {
            0
        }
    }

    fn text_of(fill: impl Fn(&WorkerMetrics)) -> String {
        let metrics = Arc::new(WorkerMetrics::default());
        fill(&metrics);
        let plan = WorkerPlan { worker: 0, core: 1, node: None, queues: Vec::new() };
        let verdicts = || [("eth1".to_owned(), [("redirected".to_owned(), 42)].into())].into();
        let state = DaemonState::new(vec![(plan, metrics)], Arc::new(Never), Box::new(verdicts));
        state.set_queues(vec![QueueStatus {
            interface: "eth\"1".into(),
            xdp_mode: "generic".into(),
            fallback: Some("the driver has none".into()),
            stale_episodes: 2,
            state: "up".into(),
            ..QueueStatus::default()
        }]);
        state.set_listeners(vec![ListenerStatus {
            service: "resp".into(),
            protocol: "tcp".into(),
            port: 6379,
            transport: "kernel".into(),
            fallback: Some("no privilege".into()),
            ..ListenerStatus::default()
        }]);
        Exposition::new(Arc::new(state)).text().expect("memory takes it")
    }

    #[test]
    fn counts_are_told_by_worker() {
        let text = text_of(|metrics| {
            metrics.frames_received.add(7);
            metrics.requested(OpKind::Get, 5);
            metrics.dropped(DropReason::UdpChecksum);
            metrics.busy_ns.add(1_500_000_000);
            metrics.items.set(3);
            metrics.kernel_tcp_happened(TcpEvent::Accepted, 9);
            metrics.table_huge_pages.set(1);
        });
        for line in [
            "dataplane_frames_received_total{worker=\"0\"} 7",
            "dataplane_requests_total{worker=\"0\",op=\"get\"} 5",
            "dataplane_drops_total{worker=\"0\",reason=\"udp_checksum\"} 1",
            "dataplane_busy_seconds_total{worker=\"0\"} 1.5",
            "dataplane_items{worker=\"0\"} 3",
            "dataplane_table_huge_pages{worker=\"0\"} 1",
            "dataplane_xdp_packets_total{interface=\"eth1\",verdict=\"redirected\"} 42",
            "dataplane_queue_up{interface=\"eth\\\"1\",queue=\"0\"} 1",
            "dataplane_queue_stale_episodes_total{interface=\"eth\\\"1\",queue=\"0\"} 2",
            "dataplane_listener_info{service=\"resp\",protocol=\"tcp\",port=\"6379\",transport=\"kernel\",fell_back=\"true\"} 1",
            "dataplane_kernel_tcp_events_total{worker=\"0\",event=\"accepted\"} 9",
            "dataplane_ready 0",
        ] {
            assert!(text.lines().any(|other| other == line), "{line} in\n{text}");
        }
        assert!(text.contains("xdp_mode=\"generic\""), "{text}");
        assert!(text.contains("fell_back=\"true\""), "{text}");
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn latencies_are_cumulative_and_in_seconds() {
        let text = text_of(|metrics| {
            metrics.latency.record(100, 2);
            metrics.latency.record(1_000_000, 3);
            metrics.latency.record(u64::MAX / 8, 1);
        });
        let buckets: Vec<(f64, u64)> = text
            .lines()
            .filter_map(|line| line.strip_prefix("dataplane_latency_seconds_bucket{le=\""))
            .map(|rest| {
                let (bound, rest) = rest.split_once('"').expect("a bound");
                let count = rest.rsplit_once(' ').expect("a count").1;
                (bound.parse().expect("a bound"), count.parse().expect("a count"))
            })
            .collect();
        assert!(buckets.is_sorted_by(|one, other| one.0 < other.0 && one.1 <= other.1), "{buckets:?}");
        let at =
            |bound: f64| buckets.iter().rfind(|&&(upper, _)| upper <= bound).map_or(0, |&(_, count)| count);
        assert_eq!((at(60e-9), at(130e-9), at(1.3e-3), at(60.0)), (0, 2, 5, 5));
        assert_eq!(buckets.last().map(|&(bound, count)| (bound.is_infinite(), count)), Some((true, 6)));
        assert!(text.contains("dataplane_latency_seconds_count{worker=\"0\"} 6"), "{text}");
    }
}
