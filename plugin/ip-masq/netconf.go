package main

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/backend/registry"
	"github.com/ip-masq/ip-masq-cni/pkg/cnicache"
	"github.com/ip-masq/ip-masq-cni/pkg/node"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// netConf is the plugin's entry in a conflist as the runtime hands it over. Other keys are ignored.
type netConf struct {
	CNIVersion string          `json:"cniVersion"`
	Name       string          `json:"name"`
	PrevResult json.RawMessage `json:"prevResult"`

	MasqChain  string `json:"masqChain"`
	Backend    string `json:"backend"`
	Masquerade *bool  `json:"masquerade"`
	EnableIPv6 bool   `json:"enableIPv6"`
	StateDir   string `json:"stateDir"`
	DataDir    string `json:"dataDir"`

	RuntimeConfig struct {
		PodAnnotations map[string]string `json:"io.kubernetes.cri.pod-annotations"`
	} `json:"runtimeConfig"`
}

func parseConf(stdin []byte) (*netConf, error) {
	conf := &netConf{}
	if err := json.Unmarshal(stdin, conf); err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, "the network configuration cannot be decoded", err.Error())
	}
	if conf.MasqChain == "" {
		conf.MasqChain = policy.DefaultChain
	}
	if conf.CNIVersion == "" {
		conf.CNIVersion = "0.1.0"
	}
	return conf, nil
}

// validate reports keys that ADD cannot work with. DEL does not ask: it must clean up whatever has become of the file.
func (c *netConf) validate() error {
	if err := policy.ValidateChain(c.MasqChain); err != nil {
		return badConf("masqChain", err)
	}
	if _, err := registry.ParseChoice(c.Backend); err != nil {
		return badConf("backend", err)
	}
	return nil
}

func badConf(key string, err error) error {
	return types.NewError(types.ErrInvalidNetworkConfig, fmt.Sprintf("key %q of the ip-masq entry: %v", key, err), "")
}

// asked is what pod and network ask for.
func (c *netConf) asked() attachment.Asked {
	return attachment.Asked{Annotations: c.RuntimeConfig.PodAnnotations, Network: c.Masquerade}
}

// node opens the node's state. The persisted policy overrules the settings given here.
func (c *netConf) node() *node.Node {
	choice, err := registry.ParseChoice(c.Backend)
	if err != nil {
		choice = registry.Auto
	}
	settings := policy.DefaultSettings()
	settings.IPv6 = c.EnableIPv6
	if policy.ValidateChain(c.MasqChain) == nil {
		settings.Chain = c.MasqChain
	}
	return node.New(node.Options{
		StateDir: c.StateDir, DataDir: c.DataDir, Choice: choice, Defaults: settings,
		CacheFile: cnicache.File, Log: logger(),
	})
}

// logger writes one line per message to stderr, which runtimes show when a verb fails; stdout belongs to the result. The
// runtime stamps the time itself.
func logger() *slog.Logger {
	noTime := func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{ReplaceAttr: noTime})).With("plugin", "ip-masq")
}
