//! Tracks and events as packets of a trace.

use std::collections::BTreeMap;

use prost::Message as _;

use super::proto::{
    CounterDescriptor, DebugAnnotation, EXPLICIT, InternedData, InternedString, ProcessDescriptor,
    SEQ_INCREMENTAL_STATE_CLEARED, SEQ_NEEDS_INCREMENTAL_STATE, TYPE_COUNTER, TYPE_SLICE_BEGIN,
    TYPE_SLICE_END, Trace, TracePacket, TrackDescriptor, TrackEvent, UNIT_SIZE_BYTES,
};

/// A track of a trace.
#[derive(Clone, Copy, Debug)]
pub(super) struct Track(u64);

/// What happens on a track from one cycle to another.
pub(super) struct Event<'a> {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) name: &'a str,
    pub(super) category: &'a str,
    pub(super) arguments: &'a [(&'a str, u64)],
}

/// A trace that is being written. All packets are of one sequence, whose strings are interned.
pub(super) struct Writer {
    trace: Trace,
    /// Tracks that have been described.
    n_tracks: u64,
    /// Tracks described of each parent: the order in which they are shown.
    n_children: BTreeMap<u64, i32>,
    names: Interned,
    categories: Interned,
}

#[derive(Default)]
struct Interned(BTreeMap<String, u64>);

impl Interned {
    /// The number of a string, and the string if it is new.
    fn number(&mut self, text: &str) -> (u64, Option<InternedString>) {
        if let Some(&iid) = self.0.get(text) {
            return (iid, None);
        }
        let iid = self.0.len() as u64 + 1;
        self.0.insert(text.to_owned(), iid);
        (iid, Some(InternedString { iid: Some(iid), name: Some(text.to_owned()) }))
    }
}

impl Writer {
    pub(super) fn new() -> Self {
        Self {
            trace: Trace::default(),
            n_tracks: 0,
            n_children: BTreeMap::new(),
            names: Interned::default(),
            categories: Interned::default(),
        }
    }

    /// A group of tracks at the top, which viewers know as a process.
    pub(super) fn process(&mut self, name: &str) -> Track {
        let pid = i32::try_from(self.n_tracks + 1).ok();
        let process = ProcessDescriptor { pid, process_name: Some(name.to_owned()) };
        self.describe(TrackDescriptor { process: Some(process), ..TrackDescriptor::default() })
    }

    /// A track below another.
    pub(super) fn track(&mut self, parent: Track, name: &str) -> Track {
        self.child(parent, name, None)
    }

    /// A track of bytes.
    pub(super) fn counter(&mut self, parent: Track, name: &str) -> Track {
        self.child(parent, name, Some(CounterDescriptor { unit: Some(UNIT_SIZE_BYTES) }))
    }

    fn child(&mut self, parent: Track, name: &str, counter: Option<CounterDescriptor>) -> Track {
        let rank = self.n_children.entry(parent.0).or_default();
        let sibling_order_rank = Some(*rank);
        *rank += 1;
        self.describe(TrackDescriptor {
            name: Some(name.to_owned()),
            parent_uuid: Some(parent.0),
            counter,
            sibling_order_rank,
            ..TrackDescriptor::default()
        })
    }

    fn describe(&mut self, descriptor: TrackDescriptor) -> Track {
        self.n_tracks += 1;
        let uuid = self.n_tracks;
        let child_ordering = Some(EXPLICIT);
        let track_descriptor = Some(TrackDescriptor { uuid: Some(uuid), child_ordering, ..descriptor });
        self.push(TracePacket { track_descriptor, ..TracePacket::default() });
        Track(uuid)
    }

    /// Events of a track follow each other in time.
    pub(super) fn event(&mut self, track: Track, event: &Event<'_>) {
        let (name, new_name) = self.names.number(event.name);
        let (category, new_category) = self.categories.number(event.category);
        let interned = InternedData {
            event_categories: new_category.into_iter().collect(),
            event_names: new_name.into_iter().collect(),
        };
        let arguments = event
            .arguments
            .iter()
            .map(|&(name, value)| DebugAnnotation { name: Some(name.to_owned()), uint_value: Some(value) });
        let begin = TrackEvent {
            category_iids: vec![category],
            debug_annotations: arguments.collect(),
            r#type: Some(TYPE_SLICE_BEGIN),
            name_iid: Some(name),
            track_uuid: Some(track.0),
            counter_value: None,
        };
        let interned_data = (interned != InternedData::default()).then_some(interned);
        self.at(event.start, begin, interned_data);
        let end =
            TrackEvent { r#type: Some(TYPE_SLICE_END), track_uuid: Some(track.0), ..TrackEvent::default() };
        self.at(event.end, end, None);
    }

    /// The value of a counter from a cycle on.
    pub(super) fn value(&mut self, track: Track, cycle: u64, value: u64) {
        let event = TrackEvent {
            r#type: Some(TYPE_COUNTER),
            track_uuid: Some(track.0),
            counter_value: i64::try_from(value).ok(),
            ..TrackEvent::default()
        };
        self.at(cycle, event, None);
    }

    fn at(&mut self, cycle: u64, event: TrackEvent, interned_data: Option<InternedData>) {
        self.push(TracePacket {
            timestamp: Some(cycle),
            track_event: Some(event),
            interned_data,
            ..TracePacket::default()
        });
    }

    fn push(&mut self, packet: TracePacket) {
        let cleared = if self.trace.packet.is_empty() { SEQ_INCREMENTAL_STATE_CLEARED } else { 0 };
        self.trace.packet.push(TracePacket {
            trusted_packet_sequence_id: Some(1),
            sequence_flags: Some(SEQ_NEEDS_INCREMENTAL_STATE | cleared),
            ..packet
        });
    }

    /// The trace's bytes.
    pub(super) fn finish(self) -> Vec<u8> {
        self.trace.encode_to_vec()
    }
}
