//! One setting of the table, and the macro that makes typed structs out of the table.

use super::value::Value;

/// A setting as everything but its reader sees it.
#[derive(Debug)]
pub(crate) struct Setting {
    /// The table of the file that it's in.
    pub(crate) section: &'static str,
    /// Its name there.
    pub(crate) name: &'static str,
    /// Both, joined by a dot.
    pub(crate) key: &'static str,
    /// What it's for.
    pub(crate) doc: &'static str,
    /// Its default.
    pub(crate) preset: Preset,
    /// The preset, or example, as the file has it.
    pub(crate) literal: fn(&str) -> Option<String>,
}

impl Setting {
    /// The environment variable.
    pub(crate) fn variable(&self) -> String {
        format!("{PREFIX}{}_{}", self.section, self.name).to_uppercase()
    }

    /// The flag, without its dashes.
    pub(crate) fn flag(&self) -> String {
        format!("{}-{}", self.section, self.name).replace('_', "-")
    }

    /// The description in one line.
    pub(crate) fn summary(&self) -> String {
        self.doc.split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

/// What the names of all environment variables begin with.
pub(crate) const PREFIX: &str = "NEUROFLOW_";

/// The default of a setting.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Preset {
    /// This value, as a flag would have it.
    Value(&'static str),
    /// None; the text is an example.
    Unset(&'static str),
}

/// A default.
pub(super) const fn preset(text: &'static str) -> Preset {
    Preset::Value(text)
}

/// No default, and an example.
pub(super) const fn unset(example: &'static str) -> Preset {
    Preset::Unset(example)
}

/// A section of the file.
#[derive(Debug)]
pub(crate) struct Section {
    pub(crate) name: &'static str,
    pub(crate) doc: &'static str,
    pub(crate) settings: &'static [Setting],
}

/// How the file has a value that a flag would write as `text`.
pub(super) fn literal<T: Value>(text: &str) -> Option<String> {
    T::read(&super::value::Raw::Plain(text.to_owned())).ok()?.toml()
}

/// Makes one struct per section, `Config` around them, the table `SECTIONS`, and the function that
/// fills a `Config`.
macro_rules! settings {
    ($(
        $(#[doc = $section_doc:literal])+
        $section:ident: $Section:ident {
            $( $(#[doc = $doc:literal])+ $name:ident: $Type:ty = $preset:expr, )+
        }
    )+) => {
        $(
            $(#[doc = $section_doc])+
            #[derive(Clone, Debug, PartialEq)]
            pub(crate) struct $Section { $( $(#[doc = $doc])+ pub(crate) $name: $Type, )+ }
        )+

        /// All settings.
        #[derive(Clone, Debug, PartialEq)]
        pub(crate) struct Config {
            $( $(#[doc = $section_doc])+ pub(crate) $section: $Section, )+
        }

        /// The table of settings, as data.
        pub(crate) static SECTIONS: &[$crate::config::setting::Section] = &[
            $( $crate::config::setting::Section {
                name: stringify!($section),
                doc: concat!($($section_doc, "\n",)+),
                settings: &[ $( $crate::config::setting::Setting {
                    section: stringify!($section),
                    name: stringify!($name),
                    key: concat!(stringify!($section), ".", stringify!($name)),
                    doc: concat!($($doc, "\n",)+),
                    preset: $preset,
                    literal: $crate::config::setting::literal::<$Type>,
                }, )+ ],
            }, )+
        ];

        impl $crate::config::load::Given {
            /// Gives every setting its value.
            pub(super) fn config(&self) -> Result<Config, ConfigError> {
                Ok(Config {
                    $( $section: $Section {
                        $( $name: self.value(concat!(stringify!($section), ".", stringify!($name)), $preset)?, )+
                    }, )+
                })
            }
        }

        impl Config {
            /// The value of a setting as the file has it; none if it isn't set.
            pub(crate) fn toml(&self, key: &str) -> Option<String> {
                $( $(
                    if key == concat!(stringify!($section), ".", stringify!($name)) {
                        return $crate::config::value::Value::toml(&self.$section.$name);
                    }
                )+ )+
                None
            }
        }
    };
}
pub(super) use settings;

#[cfg(test)]
mod tests {
    use super::super::SECTIONS;
    use super::*;

    fn all() -> impl Iterator<Item = &'static Setting> {
        SECTIONS.iter().flat_map(|section| section.settings)
    }

    #[test]
    fn names_follow_the_key() {
        let setting = all().find(|setting| setting.key == "telemetry.otlp_endpoint").unwrap();
        assert_eq!(setting.variable(), "NEUROFLOW_TELEMETRY_OTLP_ENDPOINT");
        assert_eq!(setting.flag(), "telemetry-otlp-endpoint");
    }

    #[test]
    fn every_preset_and_example_is_a_value() {
        for setting in all() {
            let (Preset::Value(text) | Preset::Unset(text)) = setting.preset;
            assert!((setting.literal)(text).is_some(), "{}: {text}", setting.key);
        }
    }
}
