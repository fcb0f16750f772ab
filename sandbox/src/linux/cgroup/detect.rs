//! Where the hierarchies of control groups are mounted, and where in them this process is. Pure:
//! texts of the kernel in, directories out.

use std::path::PathBuf;

use super::missing::Absence;

/// What the kernel's texts say.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// The hierarchy of version 2.
    pub(super) unified: Result<Place, Absence>,
    /// Hierarchies of version 1 with at least one [`Subsystem`].
    pub(super) legacy: Vec<Bound>,
}

/// A hierarchy of version 1.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Bound {
    pub(super) holds: Vec<Subsystem>,
    pub(super) place: Result<Place, Absence>,
}

/// Directories where this process's own group may be found, the likeliest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) spots: Vec<Spot>,
    /// The group's path as the process sees it.
    pub(super) path: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Spot {
    pub(super) mount: PathBuf,
    /// Our group's directory below the mount; empty if the mount itself is it.
    pub(super) below: PathBuf,
    pub(super) read_only: bool,
}

/// What version 1 calls a controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Subsystem {
    Cpu,
    CpuAccounting,
    Memory,
    Pids,
    BlockIo,
}

impl Subsystem {
    pub(super) const ALL: [Self; 5] =
        [Self::Cpu, Self::CpuAccounting, Self::Memory, Self::Pids, Self::BlockIo];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::CpuAccounting => "cpuacct",
            Self::Memory => "memory",
            Self::Pids => "pids",
            Self::BlockIo => "blkio",
        }
    }
}

/// Reads `/proc/self/mountinfo` and `/proc/self/cgroup`.
pub(super) fn layout(mount_info: &str, own_groups: &str) -> Layout {
    let mounts = mounts(mount_info);
    let groups: Vec<Membership<'_>> = own_groups.lines().filter_map(Membership::parse).collect();
    let unified = match groups.iter().find(|group| group.controllers.is_empty()) {
        Some(group) => place(group.path, mounts.iter().filter(|mount| mount.kind == Kind::Unified)),
        None => Err(Absence::NotMounted),
    };
    let legacy = groups.iter().filter_map(|group| {
        let holds: Vec<Subsystem> =
            Subsystem::ALL.into_iter().filter(|subsystem| group.has(*subsystem)).collect();
        let first = *holds.first()?;
        let mounts = mounts.iter().filter(|mount| mount.has(first));
        Some(Bound { holds, place: place(group.path, mounts) })
    });
    Layout { unified, legacy: legacy.collect() }
}

fn place<'a>(path: &str, mounts: impl Iterator<Item = &'a Mount>) -> Result<Place, Absence> {
    let mut mounted = false;
    let mut spots: Vec<Spot> = mounts
        .inspect(|_| mounted = true)
        .filter_map(|mount| {
            Some(Spot {
                mount: mount.point.clone().into(),
                below: relative(&mount.root, path)?.into(),
                read_only: mount.read_only,
            })
        })
        .collect();
    // Stable: among equals the order of mounting decides.
    spots.sort_by_key(|spot| spot.read_only);
    match (spots.is_empty(), mounted) {
        (false, _) => Ok(Place { spots, path: path.to_owned() }),
        (true, true) => Err(Absence::OutOfSight),
        (true, false) => Err(Absence::NotMounted),
    }
}

/// `path` below a mount whose root is `root`. `None`: the mount doesn't show it.
fn relative(root: &str, path: &str) -> Option<String> {
    let above = |path: &str| path.split('/').any(|part| part == "..");
    if above(root) || above(path) || path.ends_with(" (deleted)") {
        return None;
    }
    let rest = if root == "/" { path } else { path.strip_prefix(root)? };
    (rest.is_empty() || rest.starts_with('/')).then(|| rest.trim_matches('/').to_owned())
}

/// One line of `/proc/self/cgroup`.
#[derive(Debug)]
struct Membership<'a> {
    controllers: &'a str,
    path: &'a str,
}

impl<'a> Membership<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.splitn(3, ':');
        let (_number, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        path.starts_with('/').then_some(Self { controllers, path })
    }

    fn has(&self, subsystem: Subsystem) -> bool {
        self.controllers.split(',').any(|name| name == subsystem.name())
    }
}

/// One mounted hierarchy.
#[derive(Debug)]
struct Mount {
    kind: Kind,
    root: String,
    point: String,
    read_only: bool,
    options: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Unified,
    Legacy,
    Other,
}

impl Mount {
    fn has(&self, subsystem: Subsystem) -> bool {
        self.kind == Kind::Legacy && self.options.split(',').any(|name| name == subsystem.name())
    }

    fn parse(line: &str) -> Option<Self> {
        let (mount, file_system) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        let (root, point, flags) = (fields.next()?, fields.next()?, fields.next()?);
        let mut fields = file_system.split(' ');
        let (kind, _source, options) = (fields.next()?, fields.next()?, fields.next()?);
        let read_only = |options: &str| options.split(',').any(|option| option == "ro");
        Some(Self {
            kind: match kind {
                "cgroup2" => Kind::Unified,
                "cgroup" => Kind::Legacy,
                _ => Kind::Other,
            },
            root: unescape(root),
            point: unescape(point),
            read_only: read_only(flags) || read_only(options),
            options: options.to_owned(),
        })
    }
}

/// The mounts that nothing was mounted over.
fn mounts(mount_info: &str) -> Vec<Mount> {
    let mut mounts: Vec<Mount> = Vec::new();
    for mount in mount_info.lines().filter_map(Mount::parse) {
        mounts.retain(|below| below.point != mount.point);
        mounts.push(mount);
    }
    mounts.retain(|mount| mount.kind != Kind::Other);
    mounts
}

/// Blanks, backslashes and line ends in paths are written as `\` and three octal digits.
fn unescape(path: &str) -> String {
    let mut plain = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let [first, after @ ..] = rest {
        let code = match after {
            [high @ b'0'..=b'3', middle @ b'0'..=b'7', low @ b'0'..=b'7', ..]
                if *first == b'\\' =>
            {
                Some(((high - b'0') << 6) | ((middle - b'0') << 3) | (low - b'0'))
            }
            _ => None,
        };
        plain.push(code.unwrap_or(*first));
        rest = if code.is_some() { after.get(3..).unwrap_or_default() } else { after };
    }
    String::from_utf8_lossy(&plain).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Version 1 with an empty version 2 beside it, and a memory group of our own.
    const HYBRID_MOUNTS: &str = "\
22 27 0:21 / /proc rw,relatime - proc proc rw
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
33 31 0:30 / /sys/fs/cgroup/cpuacct rw,relatime - cgroup cgroup rw,cpuacct
34 31 0:31 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
38 31 0:35 / /sys/fs/cgroup/blkio rw,relatime - cgroup cgroup rw,blkio
39 31 0:36 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";
    const HYBRID_GROUPS: &str = "\
9:name=systemd:/
8:pids:/
7:blkio:/
4:memory:/jobs/340e98ff
3:cpuset:/
2:cpuacct:/
1:cpu:/
0::/
";

    fn spot(mount: &str, below: &str, read_only: bool) -> Spot {
        Spot { mount: mount.into(), below: below.into(), read_only }
    }

    fn place_at(path: &str, spots: &[Spot]) -> Place {
        Place { spots: spots.to_vec(), path: path.to_owned() }
    }

    fn legacy(layout: &Layout, subsystem: Subsystem) -> &Bound {
        layout.legacy.iter().find(|bound| bound.holds.contains(&subsystem)).unwrap()
    }

    #[test]
    fn a_hybrid_host() {
        let layout = layout(HYBRID_MOUNTS, HYBRID_GROUPS);
        assert_eq!(layout.unified, Ok(place_at("/", &[spot("/sys/fs/cgroup/unified", "", false)])));
        assert_eq!(layout.legacy.len(), 5);
        assert_eq!(
            legacy(&layout, Subsystem::Memory).place,
            Ok(place_at(
                "/jobs/340e98ff",
                &[spot("/sys/fs/cgroup/memory", "jobs/340e98ff", false)]
            ))
        );
        assert_eq!(
            legacy(&layout, Subsystem::Cpu).place,
            Ok(place_at("/", &[spot("/sys/fs/cgroup/cpu", "", false)]))
        );
    }

    #[test]
    fn version_2_with_systemd() {
        let mounts = "\
24 29 0:22 / /sys rw,nosuid,nodev,noexec,relatime shared:7 - sysfs sysfs rw
35 24 0:30 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot
";
        let path = "/user.slice/user-1000.slice/user@1000.service/app.slice/run-u7.scope";
        let layout = layout(mounts, &format!("0::{path}\n"));
        assert_eq!(layout.legacy, []);
        let below = path.trim_start_matches('/');
        assert_eq!(layout.unified, Ok(place_at(path, &[spot("/sys/fs/cgroup", below, false)])));
    }

    #[test]
    fn version_2_in_a_container() {
        let mounts = |flags| {
            format!(
                "1512 1508 0:30 / /sys/fs/cgroup {flags},nosuid,nodev,noexec,relatime - cgroup2 \
                 cgroup rw,nsdelegate,memory_recursiveprot\n"
            )
        };
        for (flags, read_only) in [("ro", true), ("rw", false)] {
            let layout = layout(&mounts(flags), "0::/\n");
            assert_eq!(layout.unified, Ok(place_at("/", &[spot("/sys/fs/cgroup", "", read_only)])));
        }
        // The host's tree, seen from a namespace that begins further down.
        let foreign = mounts("rw").replace("0:30 / ", "0:30 /../.. ");
        assert_eq!(layout(&foreign, "0::/\n").unified, Err(Absence::OutOfSight));
    }

    #[test]
    fn version_1_in_a_container() {
        // The engine binds the container's own group to the place of the root.
        let mounts = "\
700 690 0:29 /docker/4f0c /sys/fs/cgroup/cpu,cpuacct ro,nosuid,nodev - cgroup cgroup rw,cpu,cpuacct
701 690 0:32 /docker/4f0c /sys/fs/cgroup/memory ro,nosuid,nodev - cgroup cgroup rw,memory
702 690 0:36 /docker/4f0c /sys/fs/cgroup/pids ro,nosuid,nodev - cgroup cgroup rw,pids
";
        let groups = "\
6:pids:/docker/4f0c
5:memory:/docker/4f0c
4:cpu,cpuacct:/docker/4f0c
3:blkio:/docker/4f0c
";
        let layout = layout(mounts, groups);
        assert_eq!(layout.unified, Err(Absence::NotMounted));
        let both = legacy(&layout, Subsystem::Cpu);
        assert_eq!(both.holds, [Subsystem::Cpu, Subsystem::CpuAccounting]);
        let spots = [spot("/sys/fs/cgroup/cpu,cpuacct", "", true)];
        assert_eq!(both.place, Ok(place_at("/docker/4f0c", &spots)));
        assert_eq!(legacy(&layout, Subsystem::BlockIo).place, Err(Absence::NotMounted));
        // Not a neighbour whose name only begins the same.
        let neighbour = groups.replace("4f0c", "4f0cd");
        let layout = self::layout(mounts, &neighbour);
        assert_eq!(legacy(&layout, Subsystem::Memory).place, Err(Absence::OutOfSight));
    }

    #[test]
    fn no_control_groups() {
        for groups in ["", "0::/\n", "garbage\n:\n::\n"] {
            let layout = layout("22 27 0:21 / /proc rw,relatime - proc proc rw\n", groups);
            assert_eq!(layout, Layout { unified: Err(Absence::NotMounted), legacy: Vec::new() });
        }
    }

    #[test]
    fn what_is_covered_is_not_there() {
        let covered =
            format!("{HYBRID_MOUNTS}50 31 0:50 / /sys/fs/cgroup/pids rw - tmpfs none rw\n");
        let layout = layout(&covered, HYBRID_GROUPS);
        assert_eq!(legacy(&layout, Subsystem::Pids).place, Err(Absence::NotMounted));
    }

    #[test]
    fn a_writable_mount_is_preferred() {
        let mounts = "\
35 24 0:30 / /sys/fs/cgroup ro - cgroup2 cgroup2 rw
36 24 0:30 /a /mnt/with\\040blank rw - cgroup2 cgroup2 rw
37 24 0:30 /b /mnt/b rw - cgroup2 cgroup2 rw
";
        let expected = [spot("/mnt/with blank", "c", false), spot("/sys/fs/cgroup", "a/c", true)];
        assert_eq!(layout(mounts, "0::/a/c\n").unified, Ok(place_at("/a/c", &expected)));
    }

    #[test]
    fn a_removed_group_is_out_of_sight() {
        let layout = layout(HYBRID_MOUNTS, "0::/gone (deleted)\n");
        assert_eq!(layout.unified, Err(Absence::OutOfSight));
    }

    #[test]
    fn escapes_are_undone() {
        assert_eq!(unescape(r"/a\040b\134c\012"), "/a b\\c\n");
        assert_eq!(unescape(r"/a\04"), r"/a\04");
        assert_eq!(unescape(r"/a\999\"), r"/a\999\");
    }

    #[test]
    fn no_text_upsets_the_parser() {
        let mut noise = crate::noise::Noise::new(5);
        let parts = [HYBRID_MOUNTS.as_bytes(), HYBRID_GROUPS.as_bytes()];
        for _ in 0..300 {
            let damaged = parts.map(|part| {
                let mut bytes = part.to_vec();
                for _ in 0..=noise.next() % 20 {
                    let at = usize::try_from(noise.next()).unwrap_or_default() % bytes.len();
                    bytes[at] = noise.next().to_le_bytes()[0];
                }
                String::from_utf8_lossy(&bytes).into_owned()
            });
            let layout = layout(&damaged[0], &damaged[1]);
            let places = layout.legacy.iter().map(|bound| &bound.place).chain([&layout.unified]);
            for spot in places.flatten().flat_map(|place| &place.spots) {
                assert!(!spot.below.is_absolute(), "{spot:?}");
            }
        }
    }
}
