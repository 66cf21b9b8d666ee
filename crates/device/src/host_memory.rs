//! How much memory the machine has.

use std::sync::OnceLock;

use sysinfo::{MemoryRefreshKind, System};

use crate::DeviceOptions;

/// Bytes of the machine's memory, or of what it leaves to the container that this runs in; none where the system does not
/// say.
fn host_memory() -> Option<u64> {
    static BYTES: OnceLock<Option<u64>> = OnceLock::new();
    *BYTES.get_or_init(|| {
        let mut system = System::new().ok()?;
        system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
        let limit = system.cgroup_limits().map_or(u64::MAX, |limits| limits.total_memory);
        Some(system.total_memory().min(limit)).filter(|&bytes| bytes > 0)
    })
}

impl DeviceOptions {
    /// With the machine's memory as the budget, where none is said: for devices that compute in it. Systems hand out more
    /// memory than there is, and end the program that then uses it.
    pub(crate) fn within_host_memory(self) -> Self {
        Self { memory_budget: self.memory_budget.or_else(host_memory), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Device;

    #[test]
    fn a_budget_that_is_said_counts() {
        let said = DeviceOptions { memory_budget: Some(u64::MAX), ..DeviceOptions::default() };
        assert_eq!(said.within_host_memory().memory_budget, Some(u64::MAX));
        let own = DeviceOptions::default().within_host_memory().memory_budget;
        assert!(own.is_none_or(|bytes| bytes > 64 << 20), "{own:?}");
        assert_eq!(Device::cpu().options().memory_budget, own);
    }
}
