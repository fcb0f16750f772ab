//! The fuzz targets on the stable toolchain: the same functions, on damaged copies of what they read.
//! Reproducible, and short enough to run with every test; the fuzzer goes on from there.

use crate::{
    egress,
    level::Level,
    noise::Noise,
    plan::{Means, Purpose, order, plan},
    profile::Profile,
    program::Program,
    report::STAGES,
    seccomp::SeccompProfile,
    zygote::protocol::{self, Record, Request},
};

/// A copy with a few bytes changed, lost, doubled or put in.
fn damaged(clean: &[u8], noise: &mut Noise) -> Vec<u8> {
    let mut bytes = clean.to_vec();
    for _ in 0..=noise.next() % 4 {
        let random = noise.next();
        let at = usize::try_from(random >> 32).unwrap_or_default() % (bytes.len() + 1);
        let byte = random.to_le_bytes()[0];
        match random % 5 {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, byte),
            2 => {
                let tail = bytes.get(at..).unwrap_or_default().to_vec();
                bytes.extend(tail);
            }
            _ => {
                if let Some(place) = bytes.get_mut(at) {
                    *place = if random & 8 == 0 { byte } else { *place ^ (1 << (byte % 8)) };
                }
            }
        }
    }
    bytes
}

/// Each seed as it is, and damaged `rounds` times.
fn replay(seeds: &[Vec<u8>], rounds: u32, target: impl Fn(&[u8])) {
    let mut noise = Noise::new(41);
    for seed in seeds {
        target(seed);
        for _ in 0..rounds {
            target(&damaged(seed, &mut noise));
        }
    }
}

#[test]
fn launcher_protocol() {
    let profile = Profile::builder(Level::Strict).bind_ro("/srv", "/srv").build().unwrap();
    let means = Means { landlock: 7, groups: true, filter: Some(&[7; 64]), ..Means::default() };
    let plan = plan(&profile, &means).unwrap();
    let order = order(&profile, &Program::new("sh").arg("-c"), Purpose::Run).unwrap();
    let launch = Request::Launch { plan: &plan, order: &order }.header();
    let run = Request::Run { order: &order }.header();
    let seeds = [
        [&launch[..], &plan, &order].concat(),
        [&run[..], &order].concat(),
        plan.clone(),
        order.clone(),
        Record::Started { stages: [1; STAGES] }.encode().to_vec(),
        Record::Hello { landlock: 7, filters: true, groups: 5, own_ids: true, mortal: true }
            .encode()
            .to_vec(),
    ];
    replay(&seeds, 5_000, protocol::fuzz);
}

#[test]
fn egress_request() {
    let texts = [
        "GET http://api.example.com/v1/things?x=1 HTTP/1.1\r\nHost: api.example.com\r\n\r\n",
        "CONNECT pypi.org:443 HTTP/1.1\r\nHost: pypi.org:443\r\nContent-Length: 3\r\n\r\nabc",
        "http://user@api.example.com:8080/a/./b/%2e%2e/c",
        "*.example.com",
        "[2001:db8::1]:443",
        "xn--bcher-kva.example",
        "/v1/a%2Fb//c/../d",
    ];
    let mut seeds = texts.map(|text| text.as_bytes().to_vec()).to_vec();
    seeds.push(egress::sample_hello("api.example.com"));
    replay(&seeds, 5_000, egress::fuzz);
}

#[test]
fn seccomp_profile() {
    let seeds = [Level::Standard, Level::Paranoid]
        .map(|level| SeccompProfile::builtin(level).unwrap().text().as_bytes().to_vec());
    replay(&seeds, 150, |bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else { return };
        match SeccompProfile::parse(text) {
            Ok(profile) => {
                assert_eq!(profile.text(), text);
                assert_eq!(SeccompProfile::parse(profile.text()), Ok(profile));
            }
            Err(refused) => assert!(!refused.to_string().is_empty()),
        }
    });
}
