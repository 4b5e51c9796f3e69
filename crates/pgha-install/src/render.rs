//! Templates: what is written on the hosts, with the cluster's values in it.

use serde::Serialize;
use tera::{Context, Kwargs, State, Tera};

/// Every file of ours holds these words; a file without them is somebody's own.
pub const MARK: &str = "Managed by pgha-install";

const TEMPLATES: &[(&str, &str)] = &[
    ("agent.toml", include_str!("../templates/agent.toml.tera")),
    ("secrets.toml", include_str!("../templates/secrets.toml.tera")),
    ("pghactl.toml", include_str!("../templates/pghactl.toml.tera")),
    ("zoo.cfg", include_str!("../templates/zoo.cfg.tera")),
    ("haproxy.cfg", include_str!("../templates/haproxy.cfg.tera")),
    ("pgbackrest.conf", include_str!("../templates/pgbackrest.conf.tera")),
    ("pgha-backup.service", include_str!("../templates/pgha-backup.service.tera")),
    ("pgha-agent-archive.conf", include_str!("../templates/pgha-agent-archive.conf.tera")),
];

/// A template that does not fit its values: a bug of pgha-install, whichever inventory brings it out.
#[derive(Debug, thiserror::Error)]
#[error("template {name}: {why}")]
pub struct RenderError {
    /// The template.
    pub name: &'static str,
    /// What does not fit.
    pub why: String,
}

/// All templates, parsed.
#[derive(Debug)]
pub struct Templates(Tera);

impl Templates {
    /// Parses them.
    pub fn new() -> Result<Self, RenderError> {
        let mut tera = Tera::new();
        tera.register_filter("toml", toml_value);
        tera.add_raw_templates(TEMPLATES.iter().copied())
            .map_err(|error| RenderError { name: "(all)", why: error.to_string() })?;
        Ok(Self(tera))
    }

    /// Fills one in.
    pub fn render(&self, name: &'static str, values: &impl Serialize) -> Result<String, RenderError> {
        let wrong = |why: String| RenderError { name, why };
        let context = Context::from_serialize(values).map_err(|error| wrong(error.to_string()))?;
        // An `if` on a name that nobody sets is silently false: every name must be one of the values.
        let unknown = self
            .0
            .get_template_variables(name)
            .map_err(|error| wrong(error.to_string()))?
            .into_iter()
            .find(|variable| !context.contains_key(variable));
        if let Some(unknown) = unknown {
            return Err(wrong(format!("nothing is called `{unknown}`")));
        }
        self.0.render(name, &context).map_err(|error| wrong(error.to_string()))
    }
}

/// A text or a list of texts as TOML writes it.
#[expect(clippy::needless_pass_by_value, reason = "the signature of a filter")]
fn toml_value(value: tera::Value, _: Kwargs, _: &State<'_>) -> tera::TeraResult<String> {
    toml::Value::try_from(&value)
        .map(|value| value.to_string())
        .map_err(|error| tera::Error::message(error.to_string()))
}
