//! An agent's card: what a client reads before it speaks.

use a2a_pb::protojson as pb;

use crate::agent::AgentProfile;

/// The card of an agent that answers at `url`.
pub(super) fn card(
    profile: &AgentProfile,
    url: &str,
    version: &str,
) -> Result<String, serde_json::Error> {
    let skills = profile.skills.iter().map(|skill| pb::AgentSkill {
        id: skill.id.clone(),
        name: skill.name.clone(),
        description: skill.description.clone(),
        tags: skill.tags.clone(),
        examples: skill.examples.clone(),
        ..pb::AgentSkill::default()
    });
    let card = pb::AgentCard {
        name: profile.name.clone(),
        description: profile.description.clone(),
        supported_interfaces: vec![pb::AgentInterface {
            url: url.to_owned(),
            protocol_binding: "JSONRPC".to_owned(),
            tenant: String::new(),
            protocol_version: "1.0".to_owned(),
        }],
        version: version.to_owned(),
        capabilities: Some(pb::AgentCapabilities {
            streaming: Some(false),
            push_notifications: Some(false),
            extensions: Vec::new(),
            extended_agent_card: Some(false),
        }),
        default_input_modes: profile.input_modes.clone(),
        default_output_modes: profile.output_modes.clone(),
        skills: skills.collect(),
        ..pb::AgentCard::default()
    };
    serde_json::to_string(&card)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_has_every_required_field() {
        let profile = AgentProfile::new("echo", "Says what it hears.");
        let card = card(&profile, "http://127.0.0.1:1/agents/echo", "0.1.0").unwrap();
        let card: serde_json::Value = serde_json::from_str(&card).unwrap();
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
        assert_eq!(card["supportedInterfaces"][0]["protocolVersion"], "1.0");
    }
}
