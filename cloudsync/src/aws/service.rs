//! The services that are called without a generated client, and where they are.

use aws_config::SdkConfig;

/// How a service wants to be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    /// A form with `Action` and `Version`, answered in XML.
    Query {
        /// The version of the API.
        version: &'static str,
    },
    /// JSON with the action in `x-amz-target`.
    Json {
        /// What stands before the action.
        target: &'static str,
    },
}

/// One service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Service {
    /// Its name in host names, in signatures and, in upper case, in `AWS_ENDPOINT_URL_…`; in lower
    /// case also the prefix of its IAM actions.
    pub(super) name: &'static str,
    /// What stands behind `AWS_ENDPOINT_URL_`.
    variable: &'static str,
    /// How it wants to be asked.
    pub(super) protocol: Protocol,
}

pub(super) const AUTOSCALING: Service = Service {
    name: "autoscaling",
    variable: "AUTO_SCALING",
    protocol: Protocol::Query {
        version: "2011-01-01",
    },
};

pub(super) const SSM: Service = Service {
    name: "ssm",
    variable: "SSM",
    protocol: Protocol::Json {
        target: "AmazonSSM",
    },
};

pub(super) const SECRETS_MANAGER: Service = Service {
    name: "secretsmanager",
    variable: "SECRETS_MANAGER",
    protocol: Protocol::Json {
        target: "secretsmanager",
    },
};

impl Service {
    /// The URL of the service in a region: what the environment or the configuration says, else
    /// the public end point of the region's partition.
    pub(super) fn endpoint(self, sdk: &SdkConfig, region: &str) -> String {
        let own = std::env::var(format!("AWS_ENDPOINT_URL_{}", self.variable));
        let said = own
            .ok()
            .filter(|url| !url.is_empty())
            .or_else(|| sdk.endpoint_url().map(ToOwned::to_owned));
        let fips = sdk.use_fips().unwrap_or_default();
        let dual_stack = sdk.use_dual_stack().unwrap_or_default();
        said.unwrap_or_else(|| public(self.name, region, fips, dual_stack))
    }
}

/// The public end point of a service. Auto Scaling, SSM and Secrets Manager all
/// follow the general scheme (AWS General Reference, "Service endpoints").
fn public(name: &str, region: &str, fips: bool, dual_stack: bool) -> String {
    let fips = if fips { "-fips" } else { "" };
    let (plain, dual) = match region {
        _ if region.starts_with("cn-") => ("amazonaws.com.cn", "api.amazonwebservices.com.cn"),
        _ if region.starts_with("us-isob-") => ("sc2s.sgov.gov", "sc2s.sgov.gov"),
        _ if region.starts_with("us-iso-") => ("c2s.ic.gov", "c2s.ic.gov"),
        _ if region.starts_with("eusc-") => ("amazonaws.eu", "api.amazonwebservices.eu"),
        _ => ("amazonaws.com", "api.aws"),
    };
    let suffix = if dual_stack { dual } else { plain };
    format!("https://{name}{fips}.{region}.{suffix}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_partition_has_its_own_suffix() {
        let url = |region| public("ssm", region, false, false);
        assert_eq!(url("eu-west-1"), "https://ssm.eu-west-1.amazonaws.com");
        assert_eq!(url("cn-north-1"), "https://ssm.cn-north-1.amazonaws.com.cn");
        assert_eq!(
            url("us-gov-west-1"),
            "https://ssm.us-gov-west-1.amazonaws.com"
        );
        assert_eq!(
            public("ssm", "us-east-1", true, true),
            "https://ssm-fips.us-east-1.api.aws"
        );
    }
}
