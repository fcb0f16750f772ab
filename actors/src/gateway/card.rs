//! An agent's card: what a client reads before it speaks.

use std::collections::HashMap;

use a2a_pb::protojson as pb;

use super::SecurityScheme;
use crate::agent::{AgentProfile, Skill};

/// What all cards of a gateway have in common.
#[derive(Debug)]
pub(super) struct Cards<'a> {
    /// Where it's reached, without a slash at the end.
    pub(super) base_url: &'a str,
    /// The version of agents that have none of their own.
    pub(super) version: &'a str,
    /// Any of these lets a client in.
    pub(super) security: &'a [SecurityScheme],
    /// Whether it sends push notifications.
    pub(super) pushes: bool,
}

impl Cards<'_> {
    /// The card of an agent, as it's reached by its own path or at the root.
    pub(super) fn card(&self, profile: &AgentProfile, at_root: bool) -> pb::AgentCard {
        let base = self.base_url;
        let name = &profile.name;
        let interface = |url: String, binding: &str, tenant: &str| pb::AgentInterface {
            url,
            protocol_binding: binding.to_owned(),
            tenant: tenant.to_owned(),
            protocol_version: "1.0".to_owned(),
        };
        // All agents share one service of gRPC, where the tenant says which is meant.
        let supported_interfaces = if at_root {
            vec![
                interface(format!("{base}/"), "JSONRPC", ""),
                interface(base.to_owned(), "HTTP+JSON", ""),
                interface(authority(base), "GRPC", ""),
            ]
        } else {
            vec![
                interface(format!("{base}/agents/{name}"), "JSONRPC", ""),
                interface(format!("{base}/agents/{name}"), "HTTP+JSON", ""),
                interface(authority(base), "GRPC", name),
            ]
        };
        pb::AgentCard {
            name: name.clone(),
            description: profile.description.clone(),
            supported_interfaces,
            provider: profile.provider.as_ref().map(|provider| pb::AgentProvider {
                url: provider.url.clone(),
                organization: provider.organization.clone(),
            }),
            version: profile.version.clone().unwrap_or_else(|| self.version.to_owned()),
            documentation_url: profile.documentation_url.clone(),
            icon_url: profile.icon_url.clone(),
            capabilities: Some(pb::AgentCapabilities {
                streaming: Some(profile.streaming),
                push_notifications: Some(self.pushes && profile.push_notifications),
                extensions: profile.extensions.iter().map(extension).collect(),
                extended_agent_card: Some(profile.extended.is_some()),
            }),
            security_schemes: self.security.iter().map(scheme).collect(),
            security_requirements: self.security.iter().map(requirement).collect(),
            default_input_modes: profile.input_modes.clone(),
            default_output_modes: profile.output_modes.clone(),
            skills: profile.skills.iter().map(skill).collect(),
            signatures: Vec::new(),
        }
    }

    /// What is added for clients that have proved who they are; none if the agent has nothing to
    /// add, or nobody can prove anything.
    pub(super) fn extended(&self, profile: &AgentProfile, at_root: bool) -> Option<pb::AgentCard> {
        let extended = profile.extended.as_ref()?;
        if self.security.is_empty() {
            return None;
        }
        let mut card = self.card(profile, at_root);
        if let Some(description) = &extended.description {
            card.description.clone_from(description);
        }
        card.skills.extend(extended.skills.iter().map(skill));
        Some(card)
    }
}

/// `host:port` of a URL.
fn authority(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
    let authority = rest.split('/').next().unwrap_or_default();
    let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
    let port = if scheme == "https" { 443 } else { 80 };
    if has_port { authority.to_owned() } else { format!("{authority}:{port}") }
}

fn skill(skill: &Skill) -> pb::AgentSkill {
    pb::AgentSkill {
        id: skill.id.clone(),
        name: skill.name.clone(),
        description: skill.description.clone(),
        tags: skill.tags.clone(),
        examples: skill.examples.clone(),
        ..pb::AgentSkill::default()
    }
}

fn extension(extension: &crate::agent::Extension) -> pb::AgentExtension {
    pb::AgentExtension {
        uri: extension.uri.clone(),
        description: extension.description.clone(),
        required: extension.required,
        params: super::convert::read_object(extension.params.as_deref()),
    }
}

fn scheme(scheme: &SecurityScheme) -> (String, pb::SecurityScheme) {
    use pb::security_scheme::Scheme;
    let description = String::new();
    let written = match scheme {
        SecurityScheme::Bearer { format } => {
            Scheme::HttpAuthSecurityScheme(pb::HttpAuthSecurityScheme {
                description,
                scheme: "Bearer".to_owned(),
                bearer_format: format.clone().unwrap_or_default(),
            })
        }
        SecurityScheme::OpenIdConnect { url } => {
            Scheme::OpenIdConnectSecurityScheme(pb::OpenIdConnectSecurityScheme {
                description,
                open_id_connect_url: url.clone(),
            })
        }
        SecurityScheme::MutualTls => {
            Scheme::MtlsSecurityScheme(pb::MutualTlsSecurityScheme { description })
        }
    };
    (scheme.name().to_owned(), pb::SecurityScheme { scheme: Some(written) })
}

fn requirement(scheme: &SecurityScheme) -> pb::SecurityRequirement {
    let scopes = pb::StringList::default();
    pb::SecurityRequirement { schemes: HashMap::from([(scheme.name().to_owned(), scopes)]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cards(security: &[SecurityScheme]) -> Cards<'_> {
        Cards { base_url: "http://127.0.0.1:1", version: "0.1.0", security, pushes: false }
    }

    #[test]
    fn a_card_has_every_required_field_and_every_binding() {
        let profile = AgentProfile::new("echo", "Says what it hears.");
        let card = serde_json::to_value(cards(&[]).card(&profile, false)).unwrap();
        for field in [
            "name",
            "description",
            "version",
            "supportedInterfaces",
            "capabilities",
            "defaultInputModes",
            "defaultOutputModes",
            "skills",
        ] {
            assert!(card.get(field).is_some(), "{field} is missing from {card}");
        }
        for field in ["id", "name", "description", "tags"] {
            assert!(card["skills"][0].get(field).is_some(), "skills.{field}");
        }
        let interfaces = card["supportedInterfaces"].as_array().unwrap();
        let bindings: Vec<_> = interfaces.iter().map(|one| &one["protocolBinding"]).collect();
        assert_eq!(bindings, ["JSONRPC", "HTTP+JSON", "GRPC"]);
        assert!(interfaces.iter().all(|one| one["protocolVersion"] == "1.0"));
        assert_eq!(interfaces[2]["url"], "127.0.0.1:1");
        assert_eq!(interfaces[2]["tenant"], "echo");
    }

    #[test]
    fn an_extended_card_is_for_nodes_that_know_their_clients() {
        let mut profile = AgentProfile::new("echo", "Says what it hears.");
        assert!(cards(&[SecurityScheme::MutualTls]).extended(&profile, true).is_none());
        let mut extended = crate::agent::ExtendedProfile::default();
        extended.skills.clone_from(&profile.skills);
        profile.extended = Some(extended);
        assert!(cards(&[]).extended(&profile, true).is_none());
        let card = cards(&[SecurityScheme::MutualTls]).extended(&profile, true).unwrap();
        assert_eq!(card.skills.len(), 2);
        assert!(card.security_schemes.contains_key("mtls"));
    }

    #[test]
    fn the_address_of_grpc_has_a_port() {
        assert_eq!(authority("http://127.0.0.1:8080"), "127.0.0.1:8080");
        assert_eq!(authority("https://agents.example.org/a2a"), "agents.example.org:443");
        assert_eq!(authority("http://[::1]"), "[::1]:80");
        assert_eq!(authority("http://[::1]:9"), "[::1]:9");
    }
}
