//! First rows of tensors that are in SRAM where the rest is not: those that stay, and those that are loaded a
//! phase ahead.

use std::cmp::Ordering;

use crate::check::{Judge, PlanFault, common, hull, row_bytes, tiles, whole};
use crate::model::{BufferId, BufferRole, BufferView, Residency, ResidentPrefix};

/// The first rows of a tensor that stand in a phase.
#[derive(Clone, Copy)]
pub(super) struct Standing {
    /// How many.
    pub(super) rows: u32,
    /// How many of them stood there before.
    pub(super) there: u32,
    /// Columns and channels that they have, and the ring of the rest too.
    pub(super) part: BufferView,
}

impl Judge<'_> {
    /// Whether the first rows that are to be in SRAM are of a tensor that shares its bytes with no other,
    /// unless they come as it grows into one; whether, of several sets of them, those that come at once and
    /// stay longer come first, and no others are there at once; and whether those that are loaded can be.
    pub(super) fn prefixes(&mut self) {
        let mut faults = Vec::new();
        for (at, prefix) in self.plan.prefixes.iter().enumerate() {
            let (rows, until) = (prefix.rows, prefix.until);
            let Some(buffer) = self.graph.buffers.get(prefix.buffer) else { continue };
            let mut fault = |problem: &'static str| {
                faults.push(PlanFault::Prefix { buffer: buffer.name.clone(), rows, until, problem });
            };
            if rows == 0 || rows >= buffer.rows {
                fault("they are none or all");
            }
            if until <= prefix.from {
                fault("they stay for no phase but the first");
            }
            if until as usize >= self.plan.phases.len() {
                fault("there is no such phase");
                continue;
            }
            let mut others =
                self.plan.prefixes[at + 1..].iter().filter(|other| other.buffer == prefix.buffer);
            let nests = |other: &ResidentPrefix| match other.rows.cmp(&rows) {
                _ if other.from != prefix.from => other.until <= prefix.from || until <= other.from,
                Ordering::Less => other.until >= until,
                Ordering::Equal => false,
                Ordering::Greater => other.until <= until,
            };
            if !others.all(nests) {
                fault("those that stay longer do not come first");
            }
            let own = self.plan.residency[prefix.buffer];
            let shares = |residency: &Residency| {
                let into = residency.grows_into.map(|into| into.buffer);
                into == Some(prefix.buffer) || residency.in_place_of == Some(prefix.buffer)
            };
            let is_born = self.first_use(prefix.buffer) == Some(prefix.from as usize);
            let grew_before = own.grows_into.is_some() && !is_born;
            if grew_before || own.in_place_of.is_some() || self.plan.residency.values().any(shares) {
                fault("the tensor shares its bytes with another");
            }
            self.cannot_be_loaded(prefix).into_iter().for_each(fault);
        }
        self.faults.extend(faults);
    }

    /// Whether stages write first rows in the phase in which these come.
    fn is_written(&self, prefix: &ResidentPrefix) -> bool {
        self.uses(prefix.buffer).writers.iter().any(|(stage, _)| self.phase_of[stage] == prefix.from as usize)
    }

    /// Why first rows cannot be there from the phase in which they are to come, if so. Those that are written
    /// before it are loaded by it.
    fn cannot_be_loaded(&self, prefix: &ResidentPrefix) -> Option<&'static str> {
        let (from, until) = (prefix.from as usize, prefix.until as usize);
        let is_input = matches!(self.graph.buffers[prefix.buffer].role, BufferRole::Input(_));
        let older = |phase: usize| !self.wanted(prefix.buffer, phase, from).is_empty();
        if !(from..=until).any(older) {
            let is_first = self.is_written(prefix);
            return (!is_first).then_some("no phase has them to load or writes them as they come");
        }
        if !is_input && !self.plan.residency[prefix.buffer].stored {
            return Some("the tensor is not in DRAM");
        }
        if !self.is_written(prefix) && self.ahead(prefix.buffer, from).is_empty() {
            return Some("the phase that reads the tensor reads none of them");
        }
        if (from..=until).any(|phase| self.is_whole(prefix.buffer, phase)) {
            return Some("the whole tensor is there");
        }
        if self.is_written(prefix) && older(from) {
            return Some("the phase in which they come loads the tensor");
        }
        let readers = self.uses(prefix.buffer).readers.iter().map(|(stage, _)| self.phase_of[stage]);
        if readers.filter(|&reader| reader > from).min() != Some(until) {
            return Some("they are not for the next phase that reads the tensor");
        }
        // What is written after they come is missing, unless stages write it there.
        let writers = self.uses(prefix.buffer).writers.iter();
        let mut late = writers.filter(|(stage, _)| (from + 1..=until).contains(&self.phase_of[stage]));
        late.next().map(|_| "the tensor is not whole before the phase that reads them")
    }

    /// What a phase reads of what earlier phases than `before` wrote of a buffer, or of an input, as boxes.
    fn wanted(&self, buffer: BufferId, phase: usize, before: usize) -> Vec<BufferView> {
        let uses = self.uses(buffer);
        let here = uses.readers.iter().filter(|(stage, _)| self.phase_of[stage] == phase);
        let reads: Vec<BufferView> = here.map(|(_, view)| *view).collect();
        if matches!(self.graph.buffers[buffer].role, BufferRole::Input(_)) {
            return if reads.is_empty() { Vec::new() } else { vec![hull(buffer, &reads)] };
        }
        let pieces = uses.writers.iter().filter(|(writer, _)| self.phase_of[writer] < before);
        let boxes = pieces.filter_map(|(_, piece)| {
            let shared: Vec<BufferView> = reads.iter().filter_map(|read| common(read, piece)).collect();
            (!shared.is_empty()).then(|| hull(buffer, &shared))
        });
        tiles(boxes.collect())
    }

    /// First rows of a buffer that come in a phase, the most of them.
    fn comes(&self, buffer: BufferId, phase: usize) -> Option<&ResidentPrefix> {
        let prefixes = self.plan.prefixes.iter();
        prefixes.filter(|f| f.buffer == buffer && f.from as usize == phase).max_by_key(|prefix| prefix.rows)
    }

    /// What a phase loads of a buffer for a later one.
    pub(super) fn ahead(&self, buffer: BufferId, phase: usize) -> Vec<BufferView> {
        let Some(prefix) = self.comes(buffer, phase) else { return Vec::new() };
        let loads = self.wanted(buffer, prefix.until as usize, phase);
        loads.into_iter().filter_map(|load| above(load, prefix.rows)).collect()
    }

    /// How many streams of first rows of a buffer a phase names: those that come for a later phase, and if
    /// its stages use the buffer, all that stand there.
    pub(super) fn n_prefixes(&self, buffer: BufferId, phase: usize, is_used: bool) -> u64 {
        let prefixes = self.plan.prefixes.iter().filter(|prefix| prefix.buffer == buffer);
        let is_named = |prefix: &&ResidentPrefix| {
            let comes = prefix.from as usize == phase;
            let is_for_later = comes && !self.is_written(prefix);
            let stands = (prefix.from as usize..=prefix.until as usize).contains(&phase);
            is_for_later || is_used && stands
        };
        prefixes.filter(is_named).count() as u64
    }

    /// The first rows of a buffer that stand in SRAM for the stages of a phase, if some do.
    pub(super) fn standing(&self, buffer: BufferId, phase: usize) -> Option<Standing> {
        let prefixes = self.plan.prefixes.iter().filter(|prefix| prefix.buffer == buffer);
        let stands = |prefix: &&ResidentPrefix| {
            let from = prefix.from as usize + usize::from(!self.is_written(prefix));
            (from..=prefix.until as usize).contains(&phase)
        };
        let most = prefixes.filter(stands).max_by_key(|prefix| prefix.rows)?;
        let there = if (most.from as usize) < phase { most.rows } else { 0 };
        Some(Standing { rows: most.rows, there, part: self.held(most) })
    }

    /// The columns and channels of first rows, the same of all that come at once: those that are in use while
    /// any stay, all where the tensor is whole.
    fn held(&self, prefix: &ResidentPrefix) -> BufferView {
        let buffer = prefix.buffer;
        let alike = self.plan.prefixes.iter().filter(|f| f.buffer == buffer && f.from == prefix.from);
        let until = alike.map(|prefix| prefix.until as usize).max().unwrap_or(0);
        let from = prefix.from as usize + usize::from(!self.is_written(prefix));
        if (from..=until).any(|phase| self.is_whole(buffer, phase)) {
            return whole(buffer, &self.graph.buffers[buffer]);
        }
        let uses = self.uses(buffer);
        let used = uses.writers.iter().chain(&uses.readers);
        let here = used.filter(|(stage, _)| (from..=until).contains(&self.phase_of[stage]));
        hull(prefix.buffer, &here.map(|(_, view)| *view).collect::<Vec<BufferView>>())
    }

    /// Bytes of the first rows that a phase loads of a buffer for a later one, where its own stages do not
    /// use them.
    pub(super) fn bytes_ahead(&self, buffer: BufferId, phase: usize) -> u64 {
        let prefix = self.comes(buffer, phase).filter(|prefix| !self.is_written(prefix));
        prefix.map_or(0, |prefix| {
            u64::from(prefix.rows) * self.align(row_bytes(&self.graph.buffers[buffer], &self.held(prefix)))
        })
    }

    /// Bytes that the ring of the rest of a buffer, so many bytes from its base, shares with first rows that
    /// are read in this phase for the last time.
    pub(super) fn overwritten(&self, buffer: BufferId, phase: usize, ring: u64, row: u64) -> u64 {
        let Some(bases) = &self.plan.bases else { return 0 };
        let stream = bases.streams.iter().find(|s| s.buffer == buffer && s.phase as usize == phase);
        let Some(base) = stream.map(|stream| stream.base) else { return 0 };
        let of_buffer = || self.plan.prefixes.iter().filter(|prefix| prefix.buffer == buffer);
        let shared = self.plan.prefixes.iter().zip(&bases.prefixes).map(|(prefix, &at)| {
            let is_there = (prefix.from as usize) < phase && prefix.until as usize == phase;
            if prefix.buffer != buffer || !is_there {
                return 0;
            }
            let fewer = of_buffer().filter(|other| other.from == prefix.from && other.rows < prefix.rows);
            let rows = prefix.rows - fewer.map(|other| other.rows).max().unwrap_or(0);
            let end = (at + u64::from(rows) * row).min(base + ring);
            end.saturating_sub(at.max(base))
        });
        shared.sum()
    }

    /// What is stored of a part of a buffer that later phases read where the buffer is not whole: the rows
    /// that do not stay for all that read of it.
    pub(super) fn stored(&self, buffer: BufferId, phase: usize, part: BufferView) -> Option<BufferView> {
        let readers = self.uses(buffer).readers.iter().filter(|(_, read)| common(read, &part).is_some());
        let readers = readers.map(|(stage, _)| self.phase_of[stage]);
        let loading = readers.filter(|&reader| reader > phase && !self.is_whole(buffer, reader));
        let stays = |reader: usize| {
            let prefixes = self.plan.prefixes.iter().filter(|prefix| {
                prefix.buffer == buffer && prefix.from as usize <= phase && reader <= prefix.until as usize
            });
            prefixes.map(|prefix| prefix.rows).max().unwrap_or(0)
        };
        below(part, loading.map(stays).min()?)
    }
}

/// What a box has of the rows that follow the first so many, if anything.
pub(super) fn below(part: BufferView, rows: u32) -> Option<BufferView> {
    let (row0, end) = (part.row0.max(rows), part.row0 + part.rows);
    (row0 < end).then(|| BufferView { row0, rows: end - row0, ..part })
}

/// What a box has of the first so many rows, if anything.
fn above(part: BufferView, rows: u32) -> Option<BufferView> {
    let end = (part.row0 + part.rows).min(rows);
    (part.row0 < end).then(|| BufferView { rows: end - part.row0, ..part })
}
