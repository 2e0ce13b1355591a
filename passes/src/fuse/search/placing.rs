//! Where the tensors of one phase can be: all ways to place them that are not plainly worse than another.
//!
//! Tensors are placed one after another. A way that is under way is a node of a tree, a few numbers and its
//! parent, so that many can be made and few written out.

use std::ops::Range;

use strata_backend::model::graph::StageSet;
use strata_backend::model::{BufferId, BufferRole, GrowsInto, StageId};

use crate::fuse::candidates::candidate::{
    Boundary, Candidate, Growth, Movement, Ring, Variant, stands_in_dram,
};
use crate::fuse::search::{NextPhase, Place, Places, Search, place_of};

/// What a phase moves for its tensors where they are. It is part of every way to place them, so it holds no
/// more than is asked for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Moved {
    pub(super) load: Transfers,
    pub(super) store: Transfers,
    /// Cycles of the busiest stage that works by turns with transfers.
    pub(super) turn_cycles: u64,
}

/// Transfers in one direction, at the same time.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Transfers {
    bytes: u64,
    /// Cycles of the longest.
    pub(super) cycles: u64,
    /// Cycles by which they delay the begin or the end of the phase.
    pub(super) edge_cycles: u64,
}

impl Transfers {
    fn of(movement: &Movement) -> Self {
        let Movement { bytes, cycles, edge_cycles, .. } = *movement;
        Self { bytes, cycles, edge_cycles }
    }

    fn add(&mut self, more: Self) {
        self.bytes += more.bytes;
        self.cycles = self.cycles.max(more.cycles);
        self.edge_cycles += more.edge_cycles;
    }
}

impl Moved {
    /// Bytes loaded and stored.
    pub(super) fn bytes(&self) -> u64 {
        self.load.bytes + self.store.bytes
    }
}

/// Ways to place the tensors of phases. There are many, so that they share their memory.
#[derive(Debug, Default)]
pub(super) struct Placings {
    rows: Vec<Row>,
    places: Vec<(BufferId, Place)>,
    growths: Vec<Growth>,
}

/// A way to place the tensors of a phase, whose places and growths go on to where those of the next begin.
#[derive(Clone, Copy, Debug)]
struct Row {
    places: usize,
    growths: usize,
    sram_bytes: u64,
    moved_bytes: u64,
}

/// A way to place the tensors of a phase.
#[derive(Clone, Copy, Debug)]
pub(super) struct Placing<'a> {
    pub(super) places: &'a [(BufferId, Place)],
    pub(super) growths: &'a [Growth],
    pub(super) sram_bytes: u64,
    pub(super) moved_bytes: u64,
}

impl Placings {
    /// The number of the next that is added.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Adds a way to place all slots.
    pub(super) fn push(
        &mut self,
        way: &PartialPlacement,
        ways: &[PartialPlacement],
        slots: &[TensorSlot],
        growths: &[Growth],
    ) {
        let (places, made) = (self.places.len(), self.growths.len());
        self.rows.push(Row {
            places,
            growths: made,
            sram_bytes: way.grown_bytes(),
            moved_bytes: way.moved.bytes(),
        });
        self.places.extend(way.places(ways, slots).map(|(slot, place)| (slot.buffer, place)));
        self.places[places..].sort_unstable();
        let made = growths.iter().enumerate().filter(|(at, _)| way.lost >> at & 1 == 0);
        self.growths.extend(made.map(|(_, growth)| *growth));
    }

    /// A way by its number.
    pub(super) fn get(&self, at: usize) -> Placing<'_> {
        let Row { places, growths, sram_bytes, moved_bytes } = self.rows[at];
        let (places_end, growths_end) = (self.rows.get(at + 1))
            .map_or((self.places.len(), self.growths.len()), |next| (next.places, next.growths));
        Placing {
            places: &self.places[places..places_end],
            growths: &self.growths[growths..growths_end],
            sram_bytes,
            moved_bytes,
        }
    }
}

/// A way to place the first so many slots.
#[derive(Clone, Copy, Debug)]
pub(super) struct PartialPlacement {
    /// The way to place all slots but the last.
    parent: u32,
    /// Where the last slot's tensor is.
    place: Place,
    sram_bytes: u64,
    /// Bytes of SRAM that tensors take which stand nowhere else, and so must stay until they are dead.
    bound_bytes: u64,
    pub(super) moved: Moved,
    pub(super) dma_stages: u32,
    /// Growths that cannot be made any more, a bit each.
    lost: u64,
    /// Bytes that the others may save.
    may_save: u64,
}

impl PartialPlacement {
    /// No tensor of the boundary has a place yet.
    fn of(variant: &Variant, growths: &[Growth]) -> Self {
        let may_save = growths.iter().map(|growth| growth.saved_bytes).sum();
        let Ring { bytes, ref load, ref store, turn_cycles } = variant.private;
        let dma_stages = load.stages + store.stages;
        Self {
            parent: 0,
            place: Place::Dram,
            sram_bytes: bytes,
            bound_bytes: 0,
            moved: Moved { load: Transfers::of(load), store: Transfers::of(store), turn_cycles },
            dma_stages,
            lost: 0,
            may_save,
        }
    }

    /// Bytes of SRAM of a way to place all slots, with tensors grown into others.
    pub(super) fn grown_bytes(&self) -> u64 {
        self.sram_bytes - self.may_save
    }

    /// Where a way to place all slots puts their tensors, the last slot's first.
    pub(super) fn places<'w>(
        &'w self,
        ways: &'w [Self],
        slots: &'w [TensorSlot],
    ) -> impl Iterator<Item = (&'w TensorSlot, Place)> {
        let mut way = self;
        slots.iter().rev().map(move |slot| {
            let place = way.place;
            way = &ways[way.parent as usize];
            (slot, place)
        })
    }

    /// The next slot's tensor placed too; `ring` is what the phase does with it, if anything.
    fn then(mut self, slot: &TensorSlot, ring: Option<&Ring>, now: Place, growths: &[Growth]) -> Self {
        self.place = now;
        let is_alone = matches!(now, Place::Sram | Place::Both);
        let is_host = |buffer: BufferId| now == Place::InPlace && slot.host == Some(buffer);
        if !is_alone {
            let rules_out = |growth: &Growth| growth.uses(slot.buffer) || is_host(growth.into.buffer);
            for (at, growth) in growths.iter().enumerate().filter(|(_, growth)| rules_out(growth)) {
                if self.lost >> at & 1 == 0 {
                    self.lost |= 1 << at;
                    self.may_save -= growth.saved_bytes;
                }
            }
        }
        self.sram_bytes += slot.sram_bytes(now);
        if now == Place::Sram {
            self.bound_bytes += slot.whole_bytes;
        }
        let Some(ring) = ring else { return self };
        if now == Place::Dram || slot.is_first_load {
            let mut load = Transfers::of(&ring.load);
            if now.in_sram() {
                load.bytes = slot.size_bytes;
            }
            self.moved.load.add(load);
            self.moved.turn_cycles = self.moved.turn_cycles.max(ring.turn_cycles);
            self.dma_stages += ring.load.stages;
        }
        if now.in_dram() {
            self.moved.store.add(Transfers::of(&ring.store));
            self.moved.turn_cycles = self.moved.turn_cycles.max(ring.turn_cycles);
            self.dma_stages += ring.store.stages;
        }
        self
    }
}

/// What ways are ordered by: bytes moved, bytes of SRAM, and their number, which makes an order of equals.
pub(super) type WayKey = (u64, u64, usize);

/// Of the ways from `from` on, leaves the best `beam`, those that move least first, and among them the one
/// that binds the least SRAM for later phases: it is what still fits when nothing else does. `keys` is room
/// for their keys: ways are large.
fn keep_best(ways: &mut Vec<PartialPlacement>, from: usize, beam: usize, keys: &mut Vec<WayKey>) {
    keys.clear();
    let key = |(at, way): (usize, &PartialPlacement)| (way.moved.bytes(), way.sram_bytes, at);
    keys.extend(ways[from..].iter().enumerate().map(key));
    let lightest = keys.iter().copied().min_by_key(|&(moved, sram, at)| {
        let way = &ways[from + at];
        (way.bound_bytes, sram, moved, at)
    });
    keys.select_nth_unstable(beam - 1);
    keys.truncate(beam);
    keys.sort_unstable();
    if let (Some(lightest), Some(last)) = (lightest, keys.last_mut()) {
        // If it is none of the best, the worst of them goes.
        *last = lightest.max(*last);
    }
    let end = ways.len();
    for &(_, _, at) in keys.iter() {
        ways.push(ways[from + at]);
    }
    ways.copy_within(end.., from);
    ways.truncate(from + beam);
}

/// A tensor that has a place during a phase: one that the phase shares with others, or one that waits for a
/// later phase.
#[derive(Clone, Copy, Debug)]
pub(super) struct TensorSlot {
    pub(super) buffer: BufferId,
    /// The tensor in whose bytes it may be written.
    host: Option<BufferId>,
    before: Option<Place>,
    /// Where it can be.
    options: &'static [Place],
    /// Whether [`Place::Both`] is no worse than [`Place::Dram`] but for its bytes of SRAM: it moves no more
    /// now, and can still be dropped later.
    keeping_is_free: bool,
    /// Whether it stands in DRAM and was never read.
    is_first_load: bool,
    /// Whether it is used later.
    pub(super) stays: bool,
    size_bytes: u64,
    whole_bytes: u64,
    ring_bytes: u64,
}

impl TensorSlot {
    fn sram_bytes(&self, place: Place) -> u64 {
        match place {
            Place::Dram => self.ring_bytes,
            Place::Sram | Place::Both => self.whole_bytes,
            Place::InPlace => 0,
        }
    }

    fn least_bytes(&self) -> u64 {
        self.options.iter().map(|&option| self.sram_bytes(option)).min().unwrap_or(0)
    }

    fn most_bytes(&self) -> u64 {
        self.options.iter().map(|&option| self.sram_bytes(option)).max().unwrap_or(0)
    }
}

impl Search<'_> {
    /// Whether stages outside of `done` still use a buffer.
    pub(super) fn is_live(&self, buffer: BufferId, done: &StageSet) -> bool {
        let uses = &self.context.topology.uses[buffer];
        uses.readers.iter().chain(&uses.writers).any(|(stage, _)| !done.contains(*stage))
    }

    /// Where tensors are after a phase that had them at `places`: those that are needed on, and none in place
    /// of one that is not. They go to `after`.
    pub(super) fn places_after<'s>(
        &self,
        places: impl Iterator<Item = (&'s TensorSlot, Place)>,
        slots: &[TensorSlot],
        after: &mut Places,
    ) {
        let stays = |buffer: BufferId| slots.iter().any(|slot| slot.buffer == buffer && slot.stays);
        let alone = |slot: &TensorSlot, place: Place| {
            if place == Place::InPlace && !slot.host.is_some_and(stays) { Place::Sram } else { place }
        };
        after.clear();
        let living = places.filter(|(slot, _)| slot.stays);
        after.extend(living.map(|(slot, place)| (slot.buffer, alone(slot, place))));
        after.sort_unstable();
    }

    /// Ways to place the tensors of a phase: all that are not plainly worse than another, or the best of them
    /// if they are more than the beam. The tree of ways goes to `ways`; those of its leaves that place all
    /// slots are in the range that is returned.
    pub(super) fn ways(
        &mut self,
        variant: &Variant,
        slots: &[TensorSlot],
        growths: &[Growth],
        ways: &mut Vec<PartialPlacement>,
    ) -> Range<usize> {
        // What the slots from here on take at the least and at the most.
        let mut least: u64 = slots.iter().map(TensorSlot::least_bytes).sum();
        let mut most: u64 = slots.iter().map(TensorSlot::most_bytes).sum();
        // Growing into others comes last, when all places are known: till then there is room for what it may
        // save.
        let beam = self.widths().placings;
        let mut keys = std::mem::take(&mut self.way_keys);
        ways.clear();
        ways.push(PartialPlacement::of(variant, growths));
        let mut last = 0..1;
        for (at, slot) in slots.iter().enumerate() {
            let ring = variant.rings.get(at);
            least -= slot.least_bytes();
            most -= slot.most_bytes();
            for parent in last.clone() {
                let way = ways[parent];
                let all_fit = way.sram_bytes + slot.whole_bytes + most <= self.capacity;
                for &option in slot.options {
                    if option == Place::Dram && slot.keeping_is_free && all_fit {
                        continue;
                    }
                    let next = way.then(slot, ring, option, growths);
                    if next.sram_bytes + least <= self.capacity + next.may_save {
                        ways.push(PartialPlacement { parent: parent as u32, ..next });
                    }
                }
            }
            self.work += ways.len() - last.end;
            if ways.len() - last.end > beam {
                self.proven = false;
                keep_best(ways, last.end, beam, &mut keys);
            }
            last = last.end..ways.len();
        }
        self.way_keys = keys;
        last
    }

    /// The ways to place the first so many tensors of a phase, and at last all, that put each where `place`
    /// says, with those grown into others that did in `made` and still may; and those growths.
    pub(super) fn placed(
        &self,
        variant: &Variant,
        slots: &[TensorSlot],
        place: impl Fn(BufferId) -> Place,
        made: &[Growth],
    ) -> (Vec<PartialPlacement>, Vec<Growth>) {
        let possible = self.possible_growths(variant, slots);
        let growths = possible.filter(|may| made.iter().any(|growth| growth.joins_the_same(may)));
        let growths: Vec<Growth> = growths.collect();
        let mut ways = vec![PartialPlacement::of(variant, &growths)];
        for (at, slot) in slots.iter().enumerate() {
            let way = ways[at].then(slot, variant.rings.get(at), place(slot.buffer), &growths);
            ways.push(PartialPlacement { parent: at as u32, ..way });
        }
        (ways, growths)
    }

    /// Which growths of a variant this phase may make, the most saving first: the one tensor was whole and is
    /// read here for the last time, the other is written here first and used later.
    pub(super) fn growths(&self, variant: &Variant, slots: &[TensorSlot]) -> Vec<Growth> {
        let mut growths: Vec<Growth> = Vec::new();
        for growth in self.possible_growths(variant, slots) {
            let is_taken =
                |other: &Growth| other.growing == growth.growing || other.into.buffer == growth.into.buffer;
            if growths.len() < u64::BITS as usize && !growths.iter().any(is_taken) {
                growths.push(growth);
            }
        }
        growths
    }

    /// All growths that a phase of a variant may make, whether or not they can be made together.
    fn possible_growths<'s>(
        &self,
        variant: &'s Variant,
        slots: &'s [TensorSlot],
    ) -> impl Iterator<Item = Growth> + 's {
        let growths = if self.limits.growths { &variant.growths[..] } else { &[] };
        // The boundary's slots come first, in its order.
        growths.iter().filter_map(|may| {
            let (growing, dying) = (&slots[may.growing], &slots[may.dying]);
            let is_alone = matches!(dying.before, Some(Place::Sram | Place::Both));
            let dies = is_alone && !dying.stays;
            let is_born = growing.before.is_none() && growing.stays;
            let into = GrowsInto { buffer: dying.buffer, gap_bytes: may.gap_bytes };
            let growth = Growth { growing: growing.buffer, into, saved_bytes: may.saved_bytes };
            (dies && is_born).then_some(growth)
        })
    }

    /// The tensors that have a place during a phase of this candidate, after which the stages of `done` have
    /// run: those of its boundary, in its order, and others. They go to `slots`.
    pub(super) fn slots(
        &self,
        phase: NextPhase<'_>,
        before: &Places,
        done: &StageSet,
        slots: &mut Vec<TensorSlot>,
    ) {
        let (candidate, variant) = (phase.candidate, phase.variant());
        let touched = candidate.boundary.iter().zip(&variant.rings).map(|(boundary, ring)| {
            let buffer = boundary.buffer;
            let place = place_of(before, buffer);
            let stays = self.is_live(buffer, done);
            let options = if stays && self.may_be_in_place(candidate, before, buffer) {
                // Its host stands in SRAM whatever is chosen here, so this is Sram without the bytes.
                &[Place::Dram, Place::InPlace, Place::Both]
            } else {
                self.options(boundary, place, stays)
            };
            let size_bytes = self.context.graph.buffers[buffer].size_bytes();
            let is_first_load = place.is_none() && stands_in_dram(self.context.graph, buffer);
            let moves_no_more = !is_first_load || ring.load.bytes >= size_bytes;
            TensorSlot {
                buffer,
                host: self.context.in_place_targets[buffer],
                before: place,
                keeping_is_free: options.contains(&Place::Both) && moves_no_more,
                options,
                is_first_load,
                stays,
                size_bytes,
                whole_bytes: boundary.whole_bytes,
                ring_bytes: ring.bytes.min(boundary.whole_bytes),
            }
        });
        let is_touched = |buffer: BufferId| candidate.boundary.iter().any(|b| b.buffer == buffer);
        let others =
            before.iter().filter(|(buffer, _)| !is_touched(*buffer)).map(|&(buffer, place)| TensorSlot {
                buffer,
                host: self.context.in_place_targets[buffer],
                before: Some(place),
                keeping_is_free: place == Place::Both,
                options: match place {
                    Place::Dram => &[Place::Dram],
                    Place::Sram => &[Place::Sram],
                    Place::Both => &[Place::Both, Place::Dram],
                    Place::InPlace => &[Place::InPlace],
                },
                is_first_load: false,
                stays: true,
                size_bytes: self.context.graph.buffers[buffer].size_bytes(),
                whole_bytes: self.context.whole_bytes(buffer),
                ring_bytes: 0,
            });
        slots.clear();
        slots.extend(touched);
        slots.extend(others);
    }

    /// Whether a tensor that a phase writes first may be written in place of its host: that is whole, stands
    /// nowhere else, and the phase does nothing with it but to write the tensor.
    fn may_be_in_place(&self, candidate: &Candidate, before: &Places, buffer: BufferId) -> bool {
        let Some(host) = self.context.in_place_targets[buffer].filter(|_| self.limits.growths) else {
            return false;
        };
        let uses = |buffer: BufferId| &self.context.topology.uses[buffer];
        let is_written_by = |stage: StageId| uses(buffer).writers.iter().any(|(writer, _)| *writer == stage);
        let mut of_host = uses(host).writers.iter().chain(&uses(host).readers).map(|(stage, _)| *stage);
        place_of(before, buffer).is_none()
            && place_of(before, host) == Some(Place::Sram)
            && of_host.all(|stage| is_written_by(stage) || !candidate.set.contains(stage))
    }

    /// Places that a tensor can have during and after a phase that touches it.
    fn options(&self, boundary: &Boundary, before: Option<Place>, stays: bool) -> &'static [Place] {
        let role = self.context.graph.buffers[boundary.buffer].role;
        match (before, role) {
            (Some(Place::Sram), _) => &[Place::Sram],
            (Some(Place::Dram), _) => &[Place::Dram],
            (Some(Place::InPlace), _) => &[Place::InPlace],
            // What stands in both may give its SRAM up at any time, even for its last use.
            (Some(Place::Both), _) => &[Place::Dram, Place::Both],
            (None, BufferRole::Input(_) | BufferRole::Output(_)) if stays => &[Place::Dram, Place::Both],
            (None, BufferRole::Input(_) | BufferRole::Output(_)) => &[Place::Dram],
            (None, BufferRole::Internal) => &[Place::Dram, Place::Sram, Place::Both],
        }
    }
}
