//! The clients that are tried: how each calls the service, and what leads it through the proxy and lets it trust the authority.
//!
//! A script is run by `sh` in a sandbox as `keyferry run` makes it. It finds `DOCTOR_URL`, `DOCTOR_HOST` (with the port) and, in
//! `DOCTOR_TOKEN`, the placeholder of a secret.

use keyferry_sandbox::CA_BUNDLE;

/// One client.
#[derive(Debug)]
pub(super) struct Probe {
    pub(super) name: &'static str,
    /// A test that holds where the client is there.
    present: &'static str,
    script: &'static str,
    /// What leads it to the proxy.
    pub(super) proxy: Setting,
    /// What names the certificates to trust.
    pub(super) trust: Setting,
    /// What its user must know, though it works.
    pub(super) caveat: Option<&'static str>,
    /// What to do where its version can be told by no variable; the script then ends with [`UNABLE`].
    pub(super) unable: &'static str,
}

/// A variable, and the switch that does the same.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setting {
    pub(super) variable: Option<&'static str>,
    pub(super) value: &'static str,
    /// The value follows at once.
    pub(super) switch: Option<&'static str>,
}

/// Exit codes that no client has.
pub(super) const ABSENT: u8 = 200;
pub(super) const UNABLE: u8 = 201;

/// Where the way to the proxy begins.
const PROXY: &str = "http://127.0.0.1:3128";

impl Probe {
    pub(super) fn command(&self) -> String {
        format!("{{ {}; }} >/dev/null 2>&1 || exit {ABSENT}\n{}", self.present, self.script)
    }
}

const fn proxy(variable: &'static str, switch: Option<&'static str>) -> Setting {
    Setting { variable: Some(variable), value: PROXY, switch }
}

const fn trust(variable: &'static str, switch: Option<&'static str>) -> Setting {
    Setting { variable: Some(variable), value: CA_BUNDLE, switch }
}

const USUAL: Probe = Probe {
    name: "",
    present: "",
    script: "",
    // Where both cases are set, most clients obey this one.
    proxy: proxy("https_proxy", None),
    trust: trust("SSL_CERT_FILE", None),
    caveat: None,
    unable: "",
};

macro_rules! python {
    ($module:literal, $($line:literal)*) => {
        Probe {
            present: concat!("python3 -c 'import ", $module, "'"),
            script: concat!(
                "python3 - <<'EOF'\nimport os\nurl = os.environ['DOCTOR_URL']\n",
                "headers = {'Authorization': 'Bearer ' + os.environ['DOCTOR_TOKEN']}\n",
                $($line, "\n",)* "EOF",
            ),
            ..USUAL
        }
    };
}

/// Node learned to use the variables in these versions.
macro_rules! node {
    ($($line:literal)*) => {
        Probe {
            present: "command -v node",
            script: concat!(
                "node --input-type=module - <<'EOF'\n",
                "const headers = { Authorization: `Bearer ${process.env.DOCTOR_TOKEN}` };\n",
                "const [major, minor] = process.versions.node.split('.').map(Number);\n",
                "const able = major > 24 || (major === 24 && minor >= 5) || (major === 22 && minor >= 21);\n",
                "const ended = (error) => { console.error(error); process.exit(able ? 1 : 201); };\n",
                $($line, "\n",)* "EOF",
            ),
            proxy: Setting { variable: Some("NODE_USE_ENV_PROXY"), value: "1", switch: Some("--use-env-proxy=") },
            trust: trust("NODE_EXTRA_CA_CERTS", None),
            unable: "this Node ignores HTTPS_PROXY: use Node 24.5 or 22.21 and newer, or let the program send its requests by the \
                     EnvHttpProxyAgent of the package undici",
            ..USUAL
        }
    };
}

pub(super) const PROBES: &[Probe] = &[
    Probe {
        name: "curl",
        present: "command -v curl",
        script: r#"curl -sS --fail -o /dev/null -H "Authorization: Bearer $DOCTOR_TOKEN" "$DOCTOR_URL""#,
        proxy: proxy("https_proxy", Some("--proxy ")),
        trust: trust("CURL_CA_BUNDLE", Some("--cacert ")),
        ..USUAL
    },
    Probe {
        name: "wget",
        present: "command -v wget",
        script: r#"wget -nv --tries=1 -O /dev/null --header="Authorization: Bearer $DOCTOR_TOKEN" "$DOCTOR_URL""#,
        proxy: proxy("https_proxy", Some("-e https_proxy=")),
        // It reads no variable.
        trust: Setting { variable: None, value: CA_BUNDLE, switch: Some("--ca-certificate=") },
        ..USUAL
    },
    Probe {
        name: "git",
        present: "command -v git",
        script: r#"git ls-remote "https://agent:$DOCTOR_TOKEN@$DOCTOR_HOST/repository.git""#,
        proxy: proxy("https_proxy", Some("-c http.proxy=")),
        trust: trust("GIT_SSL_CAINFO", Some("-c http.sslCAInfo=")),
        ..USUAL
    },
    Probe {
        name: "gh",
        present: "command -v gh",
        script: r#"GH_HOST="$DOCTOR_HOST" GH_ENTERPRISE_TOKEN="$DOCTOR_TOKEN" gh api user"#,
        proxy: proxy("HTTPS_PROXY", None),
        ..USUAL
    },
    Probe {
        name: "pip",
        present: "command -v pip",
        script: "pip --no-input --disable-pip-version-check --retries 0 index versions \
                 --index-url \"https://agent:$DOCTOR_TOKEN@$DOCTOR_HOST/simple/\" keyferry-doctor",
        proxy: proxy("https_proxy", Some("--proxy ")),
        trust: trust("PIP_CERT", Some("--cert ")),
        ..USUAL
    },
    Probe {
        name: "npm",
        present: "command -v npm",
        script: "printf 'registry=https://%s/\\n//%s/:_authToken=%s\\nfetch-retries=0\\n' \
                 \"$DOCTOR_HOST\" \"$DOCTOR_HOST\" \"$DOCTOR_TOKEN\" > ~/.npmrc\n\
                 npm view keyferry-doctor version",
        proxy: proxy("HTTPS_PROXY", Some("--https-proxy=")),
        trust: trust("npm_config_cafile", Some("--cafile=")),
        ..USUAL
    },
    Probe {
        name: "python-urllib",
        ..python!(
            "urllib.request",
            "import urllib.request"
            "urllib.request.urlopen(urllib.request.Request(url, headers=headers)).read()"
        )
    },
    Probe {
        name: "python-requests",
        trust: trust("REQUESTS_CA_BUNDLE", None),
        ..python!("requests", "import requests" "requests.get(url, headers=headers).raise_for_status()")
    },
    Probe {
        name: "python-httpx",
        ..python!("httpx", "import httpx" "httpx.get(url, headers=headers, timeout=60).raise_for_status()")
    },
    Probe {
        name: "python-aiohttp",
        caveat: Some("aiohttp.ClientSession ignores HTTPS_PROXY unless the program gives it trust_env=True"),
        ..python!(
            "aiohttp",
            "import aiohttp, asyncio"
            "async def ask():"
            "    async with aiohttp.ClientSession(trust_env=True, raise_for_status=True) as session:"
            "        async with session.get(url, headers=headers) as answer:"
            "            await answer.text()"
            "asyncio.run(ask())"
        )
    },
    Probe {
        name: "node-fetch",
        ..node!(
            "try { const answer = await fetch(process.env.DOCTOR_URL, { headers });"
            "  if (!answer.ok) ended(answer.status); await answer.text(); } catch (error) { ended(error); }"
        )
    },
    Probe {
        name: "node-https",
        ..node!(
            "import https from 'node:https';"
            "https.get(process.env.DOCTOR_URL, { headers }, (answer) => {"
            "  answer.resume(); if (answer.statusCode !== 200) ended(answer.statusCode); }).on('error', ended);"
        )
    },
    Probe {
        name: "go",
        present: "command -v go",
        script: "export GOPROXY=\"https://agent:$DOCTOR_TOKEN@$DOCTOR_HOST\" GOSUMDB=off GOTOOLCHAIN=local GOFLAGS=-mod=mod\n\
                 go list -m doctor.keyferry.test/module@latest",
        proxy: proxy("HTTPS_PROXY", None),
        ..USUAL
    },
    Probe {
        name: "java",
        // It compiles what it runs.
        present: "command -v java && command -v javac",
        script: r#"cat > /tmp/Doctor.java <<'EOF'
import java.net.URI;
import java.net.http.*;
public class Doctor {
    public static void main(String[] arguments) throws Exception {
        var request = HttpRequest.newBuilder(URI.create(System.getenv("DOCTOR_URL")))
            .header("Authorization", "Bearer " + System.getenv("DOCTOR_TOKEN")).build();
        var answer = HttpClient.newHttpClient().send(request, HttpResponse.BodyHandlers.ofString());
        System.exit(answer.statusCode() == 200 ? 0 : 1);
    }
}
EOF
java /tmp/Doctor.java"#,
        proxy: Setting {
            variable: Some("JAVA_TOOL_OPTIONS"),
            value: "-Dhttps.proxyHost=127.0.0.1 -Dhttps.proxyPort=3128",
            switch: None,
        },
        trust: Setting { variable: Some("JAVA_TOOL_OPTIONS"), value: TRUST_STORE_OPTION, switch: None },
        ..USUAL
    },
    Probe {
        name: "aws",
        present: "command -v aws",
        script: r#"AWS_ACCESS_KEY_ID="$DOCTOR_TOKEN" AWS_SECRET_ACCESS_KEY=none AWS_DEFAULT_REGION=us-east-1 AWS_MAX_ATTEMPTS=1 \
AWS_PAGER= aws sts get-caller-identity --endpoint-url "https://$DOCTOR_HOST""#,
        trust: trust("AWS_CA_BUNDLE", Some("--ca-bundle ")),
        ..USUAL
    },
    Probe {
        name: "gcloud",
        present: "command -v gcloud",
        script: r#"export CLOUDSDK_AUTH_ACCESS_TOKEN="$DOCTOR_TOKEN" CLOUDSDK_CORE_DISABLE_PROMPTS=1
export CLOUDSDK_API_ENDPOINT_OVERRIDES_CLOUDRESOURCEMANAGER="https://$DOCTOR_HOST/"
export CLOUDSDK_CORE_DISABLE_USAGE_REPORTING=1 CLOUDSDK_COMPONENT_MANAGER_DISABLE_UPDATE_CHECK=1 CLOUDSDK_CORE_CHECK_GCE_METADATA=0
gcloud projects list --format=json"#,
        trust: trust("CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE", None),
        ..USUAL
    },
];

const TRUST_STORE_OPTION: &str = "-Djavax.net.ssl.trustStore=/etc/ssl/certs/java/cacerts";

/// What they are called on a command line.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    PROBES.iter().map(|probe| probe.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_to_be_set_is_what_a_sandbox_has() {
        let environment = keyferry_sandbox::Environment::new(&keyferry_sandbox::Request::default()).unwrap();
        for probe in PROBES {
            for setting in [probe.proxy, probe.trust] {
                assert!(setting.variable.is_some() || setting.switch.is_some(), "{}", probe.name);
                let Some(variable) = setting.variable else { continue };
                let value = environment.get(variable).and_then(|value| value.to_str()).unwrap_or_default();
                assert!(value.contains(setting.value), "{}: {variable}={value}", probe.name);
            }
        }
    }

    #[test]
    fn a_name_is_a_label_of_a_host_and_nobody_elses() {
        let mut all: Vec<_> = names().collect();
        assert!(all.iter().all(|name| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')));
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }
}
