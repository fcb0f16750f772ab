//! Attacks around a cell: what the host has open, what changes while a cell is built, and who ends
//! meanwhile.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use futures_util::future::BoxFuture;

use super::{
    Class, Goal, Limits, Outcome, Stopped, SuiteError, Wall,
    catalogue::{Entry, entry},
    conclude,
    probe::{Probe, Trial, mounts::COPIED, read_secret},
    record::Said,
    scene::{self, SECRET},
    suite::{Suite, pause_for},
};
use crate::{
    error::LaunchError,
    launcher::Launcher,
    level::{Layer, Level},
    limits,
    linux::sys::process,
    program::Program,
    step::Step,
};

/// What the host does for an attempt.
pub(super) type Around = for<'a> fn(&'a mut Suite, &'static Entry, Level) -> Pending<'a>;
type Pending<'a> = BoxFuture<'a, Result<Outcome, SuiteError>>;

pub(super) const ENTRIES: &[Entry] = &[
    races(
        "swapped-link",
        "Swaps a link on the way to a bind's source while cells are built.",
        bound,
        swapped_link,
    ),
    races(
        "swapped-directory",
        "Swaps a bind's source for a link while cells are built.",
        bound,
        swapped_directory,
    ),
    races(
        "lost-zygote",
        "Kills the zygote while cells are built, and looks for what is left.",
        wait,
        lost_zygote,
    ),
    races(
        "abandoned-launch",
        "Loses interest in cells while they are built, and looks for what is left.",
        wait,
        abandoned,
    ),
];

const fn races(
    name: &'static str,
    about: &'static str,
    inside: super::probe::Try,
    around: Around,
) -> Entry {
    entry(Class::Races, name, about, &[], inside)
        .bounded(Limits::Usual, Goal::Around)
        .without_control("it takes a cell that is being built")
        .around(around)
}

/// A launcher that was started while the host had a file open that programs inherit.
pub(super) fn leaked_descriptor<'a>(
    suite: &'a mut Suite,
    entry: &'static Entry,
    level: Level,
) -> Pending<'a> {
    Box::pin(async move {
        let place = suite.scene().path("secret");
        let leaked = scene::leak(suite.scene()).map_err(failed("a leaked descriptor", &place))?;
        let launcher = Launcher::start_async().await?;
        let outcome = suite.inside_of(&launcher, entry, level).await;
        drop(leaked);
        outcome
    })
}

/// The server behind the proxy tells whether the hidden request has arrived.
pub(super) fn smuggled_request<'a>(
    suite: &'a mut Suite,
    entry: &'static Entry,
    level: Level,
) -> Pending<'a> {
    Box::pin(async move {
        suite.scene().heard_behind();
        let launcher = suite.launcher().clone();
        let outcome = suite.inside_of(&launcher, entry, level).await?;
        let heard = suite.scene().heard_behind();
        let heard = String::from_utf8_lossy(&heard);
        Ok(match outcome {
            _ if heard.contains("/closed") => {
                Outcome::Succeeded("the server heard the hidden request".to_owned())
            }
            Outcome::Succeeded(_) => {
                let evidence = "the server heard the open request only".to_owned();
                Outcome::Stopped(Stopped { layer: Wall::Egress, evidence })
            }
            other => other,
        })
    })
}

/// The two servers of the rebound name tell which of them was reached.
pub(super) fn rebound_name<'a>(
    suite: &'a mut Suite,
    entry: &'static Entry,
    level: Level,
) -> Pending<'a> {
    Box::pin(async move {
        suite.scene().rebound();
        let launcher = suite.launcher().clone();
        let outcome = suite.inside_of(&launcher, entry, level).await?;
        Ok(match (suite.scene().rebound(), outcome) {
            ([_, closed], _) if closed > 0 => {
                Outcome::Succeeded("the host's loopback was reached".to_owned())
            }
            // A proxy that lets nobody out would prove nothing.
            ([0, _], Outcome::Stopped(_)) => {
                Outcome::Unclear("the address that is open wasn't reached".to_owned())
            }
            (_, outcome) => outcome,
        })
    })
}

/// A cell changes its view of a project, and the host looks at the project.
pub(super) fn changed_project<'a>(
    suite: &'a mut Suite,
    entry: &'static Entry,
    level: Level,
) -> Pending<'a> {
    Box::pin(async move {
        let place = suite.scene().path("project");
        let prepared = fs::create_dir_all(&place).and_then(|()| {
            for name in PROJECT {
                fs::write(place.join(name), name)?;
                fs::set_permissions(place.join(name), fs::Permissions::from_mode(0o666))?;
            }
            fs::set_permissions(&place, fs::Permissions::from_mode(0o777))
        });
        prepared.map_err(failed("a project", &place))?;
        let profile = suite.profile(level, Limits::Usual).copy_on_write(&place, COPIED).build();
        let Ok(profile) = profile else {
            return Ok(Outcome::NotTried("this level has no projects"));
        };
        let (arguments, _) = suite.arguments(entry.attempt.name, Path::new("/tmp"));
        let program = Program::new(suite.probe_path(level)).args(arguments);
        let cell = match suite.launcher().launch(&profile, &program).await {
            Ok(cell) => cell,
            // Other cells of the level start here, so it's the overlay.
            Err(
                error @ (LaunchError::Unavailable { layer: Layer::PrivateRoot, .. }
                | LaunchError::Setup { step: Step::MountOverlay, .. }),
            ) => return Ok(Outcome::Moot(format!("this host mounts no overlay: {error}"))),
            Err(source) => return Ok(Outcome::Unclear(source.to_string())),
        };
        let said = Said::parse(&cell.collect().await.stdout);
        let is_whole = PROJECT
            .iter()
            .all(|name| fs::read(place.join(name)).is_ok_and(|is| is == name.as_bytes()));
        let count = fs::read_dir(&place).map_err(failed("a project", &place))?.count();
        Ok(match said {
            _ if !is_whole || count != PROJECT.len() => {
                Outcome::Succeeded("the project itself has changed".to_owned())
            }
            // What failed in its own view shows nothing about the project.
            Some(Said::Failed { call, errno }) => {
                Outcome::Unclear(format!("{call}: {}", conclude::name(errno)))
            }
            None => Outcome::Unclear("it said nothing".to_owned()),
            Some(Said::Succeeded(what)) => {
                let evidence = format!("{what}, the project hasn't");
                Outcome::Stopped(Stopped { layer: Wall::Layer(Layer::PrivateRoot), evidence })
            }
        })
    })
}

/// The files of the attacked project, each of which holds its own name.
const PROJECT: [&str; 3] = ["kept", "removed", "renamed"];

/// Reads what the cell has in place of what it was promised.
fn bound(_probe: &Probe) -> Trial {
    read_secret("/bound/secret")
}

fn wait(_probe: &Probe) -> Trial {
    crate::linux::sys::probe::pause()
}

/// The path's last part is honest, the one before it is a link.
fn swapped_link<'a>(suite: &'a mut Suite, entry: &'static Entry, level: Level) -> Pending<'a> {
    Box::pin(async move {
        let place = suite.scene().path("link");
        let prepared = place_for_swaps(&place).and_then(|()| {
            fs::create_dir(place.join("honest/inner"))?;
            fs::create_dir(place.join("secret/inner"))?;
            fs::write(place.join("honest/inner/secret"), "nothing\n")?;
            fs::write(place.join("secret/inner/secret"), SECRET)?;
            symlink("honest", place.join("way"))
        });
        prepared.map_err(failed("a link", &place))?;
        let source = place.join("way/inner");
        let swap = move || {
            for target in ["secret", "honest"] {
                let next = place.join("next");
                // Whatever fails is tried again in a moment.
                symlink(target, &next).and_then(|()| fs::rename(&next, place.join("way"))).ok();
            }
        };
        swapped(suite, entry, level, source, swap).await
    })
}

/// The path is a directory when the profile is made, and a link to another one sometimes later.
fn swapped_directory<'a>(suite: &'a mut Suite, entry: &'static Entry, level: Level) -> Pending<'a> {
    Box::pin(async move {
        let place = suite.scene().path("directory");
        let prepared = place_for_swaps(&place).and_then(|()| {
            fs::write(place.join("honest/secret"), "nothing\n")?;
            fs::write(place.join("secret/secret"), SECRET)
        });
        prepared.map_err(failed("a directory", &place))?;
        let source = place.join("honest");
        let swap = move || {
            let (honest, aside) = (place.join("honest"), place.join("aside"));
            if fs::rename(&honest, &aside).is_ok() {
                symlink("secret", &honest).ok();
                fs::remove_file(&honest).ok();
                fs::rename(&aside, &honest).ok();
            }
        };
        swapped(suite, entry, level, source, swap).await
    })
}

fn place_for_swaps(place: &Path) -> std::io::Result<()> {
    // The last level's are still there.
    match fs::remove_dir_all(place) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    for name in ["honest", "secret"] {
        fs::create_dir_all(place.join(name))?;
    }
    Ok(())
}

/// Starts cells while another thread swaps what they bind.
async fn swapped(
    suite: &mut Suite,
    entry: &'static Entry,
    level: Level,
    source: PathBuf,
    swap: impl Fn() + Send + 'static,
) -> Result<Outcome, SuiteError> {
    let name = entry.attempt.name;
    let profile = suite.profile(level, Limits::Usual).bind_ro(source, "/bound").build();
    let Ok(profile) = profile else {
        return Ok(Outcome::NotTried("this level has no binds"));
    };
    let over = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&over);
    let swapper = tokio::task::spawn_blocking(move || {
        while !seen.load(Ordering::Relaxed) {
            swap();
        }
    });
    let (mut honest, mut refused) = (0, 0);
    let mut outcome = None;
    for _ in 0..limits::PROBE_SWAPS {
        let (arguments, _) = suite.arguments(name, Path::new("/tmp"));
        let program = Program::new(suite.probe_path(level)).args(arguments);
        match suite.launcher().launch(&profile, &program).await {
            Ok(cell) => match Said::parse(&cell.collect().await.stdout) {
                Some(Said::Succeeded(what)) => {
                    outcome = Some(Outcome::Succeeded(what));
                    break;
                }
                _ => honest += 1,
            },
            Err(LaunchError::Bind { .. }) => refused += 1,
            Err(source) => {
                outcome = Some(Outcome::Unclear(source.to_string()));
                break;
            }
        }
    }
    over.store(true, Ordering::Relaxed);
    swapper.await.ok();
    Ok(outcome.unwrap_or_else(|| {
        let evidence = format!("{honest} cells saw what was promised, {refused} were refused");
        Outcome::Stopped(Stopped { layer: Wall::Launcher, evidence })
    }))
}

/// Kills the zygote at a different moment of each launch.
fn lost_zygote<'a>(suite: &'a mut Suite, entry: &'static Entry, level: Level) -> Pending<'a> {
    Box::pin(async move {
        let mut marks = Vec::new();
        for number in 0..limits::PROBE_LOSSES {
            // One of our own: nobody else's cells end with it.
            let launcher = Launcher::start_async().await?;
            let Some(zygote) = launcher.zygote_pid(level) else { continue };
            let (arguments, mark) = suite.arguments(entry.attempt.name, Path::new("/tmp"));
            marks.push(mark);
            let program = Program::new(suite.probe_path(level)).args(arguments);
            let profile = suite.profile(level, Limits::Usual).build();
            let Ok(profile) = profile else { continue };
            let launch = launcher.launch(&profile, &program);
            let kill = async {
                pause_for(limits::PROBE_MOMENT.saturating_mul(number)).await;
                // It is a child of ours that nobody has reaped, so the number is its own.
                process::kill(zygote, libc::SIGKILL).ok();
            };
            let (launched, ()) = tokio::join!(launch, kill);
            drop(launched);
        }
        Ok(left(suite, &marks).await)
    })
}

/// Drops the launch at a different moment each time.
fn abandoned<'a>(suite: &'a mut Suite, entry: &'static Entry, level: Level) -> Pending<'a> {
    Box::pin(async move {
        let mut marks = Vec::new();
        for number in 0..limits::PROBE_LOSSES {
            let (arguments, mark) = suite.arguments(entry.attempt.name, Path::new("/tmp"));
            marks.push(mark);
            let program = Program::new(suite.probe_path(level)).args(arguments);
            let profile = suite.profile(level, Limits::Usual).build();
            let Ok(profile) = profile else { continue };
            let launcher = suite.launcher().clone();
            tokio::select! {
                launched = launcher.launch(&profile, &program) => drop(launched),
                () = pause_for(limits::PROBE_MOMENT.saturating_mul(number)) => {}
            }
        }
        Ok(left(suite, &marks).await)
    })
}

async fn left(suite: &Suite, marks: &[String]) -> Outcome {
    let mut left = 0;
    for mark in marks {
        left += suite.left(mark).await;
    }
    if left > 0 {
        return Outcome::Succeeded(format!("{left} processes are left"));
    }
    let evidence = format!("nothing is left of {} launches", marks.len());
    Outcome::Stopped(Stopped { layer: Wall::Layer(Layer::ProcessTree), evidence })
}

fn failed<'a>(
    what: &'static str,
    place: &'a Path,
) -> impl FnOnce(std::io::Error) -> SuiteError + 'a {
    move |source| SuiteError::Scene { what, place: place.to_owned(), source }
}
