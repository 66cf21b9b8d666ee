//! Storages to slots: two values share memory where their lifetimes do not meet.
//!
//! Greedy by size: the largest value first, each into the first slot of its type that is free for its whole
//! lifetime.

use std::collections::BTreeMap;

use kiln_kernel::Launch;

use crate::plan::{
    External, Fetch, Place, Plan, Slot, Tenant,
    lower::{Lowered, Storage},
};

/// `value_bytes` are those of all recorded operations' results.
pub(crate) fn assign(lowered: Lowered, value_bytes: u64) -> Plan {
    let Lowered { launches, storages, fetches, literals, besides } = lowered;
    let naive_bytes = value_bytes + 4 * besides as u64;
    // a range of another storage lives in that
    let home = |s: Storage| storages[s.0].within.map_or((s, 0), |(whole, offset)| (whole, offset));
    // first and last launch that touch each storage
    let mut lives: Vec<Option<(usize, usize)>> = vec![None; storages.len()];
    for (at, launch) in launches.iter().enumerate() {
        for storage in &launch.arguments {
            let life = lives[home(*storage).0.0].get_or_insert((at, at));
            life.1 = at;
        }
    }
    for (_, storage, _) in &fetches {
        if let Some(life) = &mut lives[home(*storage).0.0] {
            life.1 = usize::MAX;
        }
    }

    let mut by_size: Vec<usize> = (0..storages.len()).filter(|&s| storages[s].place.is_none()).collect();
    by_size.sort_by_key(|&s| std::cmp::Reverse(storages[s].len));
    let mut places: Vec<Option<Place>> = storages.iter().map(|s| s.place.clone()).collect();
    let mut slots: Vec<Slot> = Vec::new();
    let mut tenants: Vec<Tenant> = Vec::new();
    let mut taken: Vec<Vec<(usize, usize)>> = Vec::new();
    for s in by_size {
        let Some((first, last)) = lives[s] else { continue };
        let (dtype, len) = (storages[s].dtype, storages[s].len);
        let free = |slot: usize| taken[slot].iter().all(|&(f, l)| last < f || l < first);
        let slot = (0..slots.len()).find(|&i| slots[i].dtype == dtype && free(i)).unwrap_or_else(|| {
            slots.push(Slot { dtype, len });
            slots.len() - 1
        });
        if slot == taken.len() {
            taken.push(Vec::new());
        }
        taken[slot].push((first, last));
        if let Some((what, shape)) = &storages[s].what {
            let (what, shape) = (what.clone(), shape.clone());
            tenants.push(Tenant { slot, what, shape, bytes: 4 * len as u64 });
        }
        places[s] = Some(Place::Slot { index: slot, offset: 0, len });
    }

    let place = |s: Storage| {
        let (whole, from) = home(s);
        let found = places[whole.0].clone();
        match found.unwrap_or_else(|| unreachable!("storages of launches and fetches have a place")) {
            Place::Slot { index, offset, .. } => {
                Place::Slot { index, offset: offset + from, len: storages[s.0].len }
            }
            external => external,
        }
    };
    let mut externals = BTreeMap::new();
    for storage in &storages {
        if let Some(Place::External { name, offset, len }) = &storage.place {
            let external = externals.entry(name.clone()).or_insert(External { dtype: storage.dtype, len: 0 });
            external.len = external.len.max(offset + len);
        }
    }
    let fetches =
        fetches.into_iter().map(|(name, s, shape)| Fetch { name, place: place(s), shape }).collect();
    let launches = launches
        .into_iter()
        .map(|l| Launch {
            kernel: l.kernel,
            arguments: l.arguments.iter().map(|s| place(*s)).collect(),
            label: l.label,
        })
        .collect();
    Plan { launches, slots, tenants, externals, fetches, literals, naive_bytes }
}
