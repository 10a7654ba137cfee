package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/netip"

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/types/create"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
)

// previousResult is what the plugins before us in the list returned.
type previousResult struct {
	raw     []byte
	version string
	typed   types.Result
	current *current.Result
}

// parsePrevious decodes the previous result by its own cniVersion: some main plugins print another than the list's
// (containernetworking/cni#862), which the library's ParsePrevResult refuses.
func parsePrevious(conf *netConf) (*previousResult, error) {
	if len(conf.PrevResult) == 0 || string(conf.PrevResult) == "null" {
		return nil, types.NewError(types.ErrInvalidNetworkConfig,
			"no prevResult: ip-masq is a chained plugin and must stand after the main plugin in the conflist", "")
	}
	var about struct {
		CNIVersion string `json:"cniVersion"`
	}
	if err := json.Unmarshal(conf.PrevResult, &about); err != nil {
		return nil, undecodable(err)
	}
	result := &previousResult{raw: conf.PrevResult, version: about.CNIVersion}
	version := about.CNIVersion
	if version == "" {
		version = conf.CNIVersion
	}
	var err error
	if result.typed, err = create.Create(version, conf.PrevResult); err != nil {
		return nil, undecodable(err)
	}
	if result.current, err = current.NewResultFromResult(result.typed); err != nil {
		return nil, undecodable(err)
	}
	return result, nil
}

func undecodable(err error) error {
	return types.NewError(types.ErrDecodingFailure, "prevResult cannot be decoded", err.Error())
}

// print passes the result on: the same bytes where the version is the configuration's, converted otherwise.
func (r *previousResult) print(to io.Writer, version string) error {
	if r.version == version {
		printJSON(to, json.RawMessage(r.raw))
		return nil
	}
	converted, err := r.typed.GetAsVersion(version)
	if err != nil {
		return types.NewError(types.ErrInvalidNetworkConfig, fmt.Sprintf("prevResult cannot be converted to cniVersion %s", version), err.Error())
	}
	printJSON(to, converted)
	return nil
}

// addresses selects the addresses that the pod sends from: those without an interface, on the interface of this call, or on
// another one inside the container. Addresses of host interfaces are not the pod's.
func (r *previousResult) addresses(ifName, netns string) []netip.Addr {
	var out []netip.Addr
	for _, ip := range r.current.IPs {
		addr, ok := netip.AddrFromSlice(ip.Address.IP)
		if ok && r.inPod(ip.Interface, ifName, netns) {
			out = append(out, addr)
		}
	}
	return attachment.Normalize(out)
}

// inPod follows what main plugins really print: kindnet leaves the sandbox of the pod's interface empty, and some name no
// interface at all.
func (r *previousResult) inPod(index *int, ifName, netns string) bool {
	if index == nil || *index < 0 || *index >= len(r.current.Interfaces) || r.current.Interfaces[*index] == nil {
		return true
	}
	iface := r.current.Interfaces[*index]
	return iface.Name == ifName || (iface.Sandbox != "" && iface.Sandbox == netns)
}

// printJSON prints one document. A failed write to stdout is the runtime's to notice.
func printJSON(to io.Writer, document any) {
	encoder := json.NewEncoder(to)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "    ")
	_ = encoder.Encode(document)
}
