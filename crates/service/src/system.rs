//! What the system lets this process have: file descriptors, threads, and mappings of memory.
//!
//! A bound that cannot be read bounds nothing.

use std::fs::read_to_string;
use std::path::Path;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// No bound at all is more than any system has.
const UNBOUNDED: u64 = u32::MAX as u64;

/// Raises the limit of descriptors as far as the system allows it, and says what it is then.
pub fn raise_descriptors() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let most = maximum.unwrap_or(UNBOUNDED);
    if current.is_some_and(|current| current < most) {
        match setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum }) {
            Ok(()) => tracing::info!(before = current, now = most, "raised the limit of open files"),
            Err(error) => tracing::warn!(%error, limit = current, "could not raise the limit of open files"),
        }
    }
    descriptors()
}

/// How many descriptors this process may have now.
pub fn descriptors() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(UNBOUNDED)
}

/// How many threads there may be: this process' own and those of others that share a bound with it. On Linux (proc(5),
/// cgroups(7)) the least of `ulimit -u`, `kernel.threads-max`, `kernel.pid_max` and `pids.max` of its control groups.
pub fn threads() -> u64 {
    let of_user = getrlimit(Resource::Nproc).current.unwrap_or(UNBOUNDED);
    let of_system = ["threads-max", "pid_max"].map(|name| number_in(&Path::new("/proc/sys/kernel").join(name)));
    let groups = read_to_string("/proc/self/cgroup").unwrap_or_default();
    let of_groups = most_tasks(&groups, Path::new("/sys/fs/cgroup"));
    of_system.into_iter().fold(of_user.min(of_groups), u64::min)
}

/// How many mappings of memory this process may have: `vm.max_map_count` on Linux.
pub fn mappings() -> u64 {
    number_in(Path::new("/proc/sys/vm/max_map_count"))
}

fn number_in(path: &Path) -> u64 {
    // A control group without a bound says `max`.
    read_to_string(path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(UNBOUNDED)
}

/// The least `pids.max` of the groups in this listing, which is `/proc/self/cgroup`, and of all groups that they are in.
fn most_tasks(listing: &str, mounted: &Path) -> u64 {
    let groups = listing.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?.trim_start_matches('/'));
        match controllers {
            "" => Some(mounted.join(path)),
            // Version 1 has a tree for each controller.
            "pids" => Some(mounted.join("pids").join(path)),
            _ => None,
        }
    });
    groups.map(|group| least_up_to(&group, mounted)).min().unwrap_or(UNBOUNDED)
}

fn least_up_to(group: &Path, mounted: &Path) -> u64 {
    let parents = group.ancestors().take_while(|parent| parent.starts_with(mounted));
    parents.map(|parent| number_in(&parent.join("pids.max"))).min().unwrap_or(UNBOUNDED)
}

#[cfg(test)]
mod tests {
    use std::fs::{create_dir_all, write};

    use super::*;

    #[test]
    fn tasks_are_bounded_by_the_narrowest_of_all_groups() {
        let mounted = tempfile::tempdir().unwrap();
        let group = |path: &str, bound: &str| {
            create_dir_all(mounted.path().join(path)).unwrap();
            write(mounted.path().join(path).join("pids.max"), bound).unwrap();
        };
        let most = |listing| most_tasks(listing, mounted.path());
        group("pods/pod/container", "max\n");
        group("pods/pod", "500\n");
        group("pods", "9000\n");
        group("pids/service", "300\n");
        assert_eq!(most("0::/pods/pod/container\n"), 500);
        assert_eq!(most("0::/pods\n"), 9_000);
        assert_eq!(most("4:memory:/service\n8:pids:/service\n0::/\n"), 300);
        assert_eq!(most("0::/elsewhere\n"), UNBOUNDED);
        assert_eq!(most(""), UNBOUNDED);
    }

    #[test]
    fn this_machine_has_some_of_each() {
        assert!(descriptors() > 3);
        assert!(threads() > 1);
        assert!(mappings() > 100);
        // Where there is `/proc`, what is read there is found.
        assert!(!cfg!(target_os = "linux") || threads().max(mappings()) < UNBOUNDED);
    }
}
