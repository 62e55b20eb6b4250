//! The heartbeat view over a real BPF array, as the XDP program and the workers share it. Needs CAP_BPF.

use std::os::fd::AsFd;

use dataplane::control::heartbeat::{HeartbeatLayout, HeartbeatMap, Heartbeats};
use dataplane::limits::WORKERS_MAX;
use libbpf_rs::{MapCore, MapFlags, MapHandle, MapType};

/// An array that user space may map.
fn array(value_bytes: u32, entries: u32, flags: u32) -> MapHandle {
    let options = libbpf_rs::libbpf_sys::bpf_map_create_opts {
        sz: size_of::<libbpf_rs::libbpf_sys::bpf_map_create_opts>() as libbpf_rs::libbpf_sys::size_t,
        map_flags: flags,
        ..Default::default()
    };
    MapHandle::create(MapType::Array, Some("heartbeats"), 4, value_bytes, entries, &options)
        .expect("this test needs CAP_BPF: run it as root")
}

#[test]
fn beats_in_a_bpf_map_are_seen_as_they_happen() {
    for stride_bytes in [8usize, 16, 64] {
        let map = array(stride_bytes as u32, WORKERS_MAX as u32, libbpf_rs::libbpf_sys::BPF_F_MMAPABLE);
        let layout = HeartbeatLayout { offset_bytes: 0, stride_bytes, slots: WORKERS_MAX };
        let view = HeartbeatMap::open(&map.as_fd(), layout).expect("it maps");
        for (worker, beat_ns) in [(0u32, 11u64), (63, 22), (0, 33)] {
            let mut value = vec![0; stride_bytes];
            value[..8].copy_from_slice(&beat_ns.to_ne_bytes());
            map.update(&worker.to_ne_bytes(), &value, MapFlags::ANY).expect("there is such a slot");
            assert_eq!(view.heartbeat_ns(worker as usize), beat_ns, "stride {stride_bytes}");
        }
        drop(map);
        assert_eq!(view.heartbeat_ns(63), 22, "the view outlives the descriptor");
    }
}

#[test]
fn a_map_that_cannot_be_mapped_is_an_error() {
    let layout = HeartbeatLayout { offset_bytes: 0, stride_bytes: 8, slots: WORKERS_MAX };
    let map = array(8, WORKERS_MAX as u32, 0);
    assert!(HeartbeatMap::open(&map.as_fd(), layout).is_err(), "without BPF_F_MMAPABLE");
    let small = array(8, 1, libbpf_rs::libbpf_sys::BPF_F_MMAPABLE);
    let beyond_a_page = HeartbeatLayout { stride_bytes: 128, ..layout };
    assert!(HeartbeatMap::open(&small.as_fd(), beyond_a_page).is_err(), "longer than the map");
}
