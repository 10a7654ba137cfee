// Package cniresult reads the result of the plugins before us in a list: which addresses are the pod's.
//
// It refuses to correct what others printed: a result is passed on as it came.
package cniresult

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/types/create"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
)

// Result is a result of any supported version.
type Result struct {
	raw     []byte
	version string
	typed   types.Result
	current *current.Result
}

// Parse decodes a result by its own cniVersion, and by fallback where it has none: some main plugins print another version than
// their list's (containernetworking/cni#862), which the library's ParsePrevResult refuses.
func Parse(raw []byte, fallback string) (*Result, error) {
	var about struct {
		CNIVersion string `json:"cniVersion"`
	}
	if err := json.Unmarshal(raw, &about); err != nil {
		return nil, fmt.Errorf("decode result: %w", err)
	}
	result := &Result{raw: raw, version: about.CNIVersion}
	var err error
	if about.CNIVersion == "" {
		about.CNIVersion = fallback
		if raw, err = versioned(raw, fallback); err != nil {
			return nil, fmt.Errorf("decode result: %w", err)
		}
	}
	if err := result.decode(about.CNIVersion, raw); err != nil {
		return nil, fmt.Errorf("decode result: %w", err)
	}
	return result, nil
}

func (r *Result) decode(version string, raw []byte) (err error) {
	defer caught(&err)
	if r.typed, err = create.Create(version, raw); err != nil {
		return err
	}
	r.current, err = current.NewResultFromResult(r.typed)
	return err
}

// caught makes an error of a panic: the library's conversions follow every pointer, and an item may be null. A broken file
// of one pod must not end the agent.
func caught(err *error) {
	if problem := recover(); problem != nil {
		*err = fmt.Errorf("the result has an empty item: %v", problem)
	}
}

// versioned adds the version, without which the library decodes nothing.
func versioned(raw []byte, version string) ([]byte, error) {
	var keys map[string]any
	if err := json.Unmarshal(raw, &keys); err != nil || keys == nil {
		return raw, err
	}
	keys["cniVersion"] = version
	return json.Marshal(keys)
}

// As returns the result for printing in a version: the same bytes where that is its own, converted otherwise.
func (r *Result) As(version string) (any, error) {
	if r.version == version {
		return json.RawMessage(r.raw), nil
	}
	converted, err := r.convert(version)
	if err != nil {
		return nil, fmt.Errorf("convert result to cniVersion %s: %w", version, err)
	}
	return converted, nil
}

func (r *Result) convert(version string) (converted types.Result, err error) {
	defer caught(&err)
	return r.typed.GetAsVersion(version)
}

// Addresses selects the addresses that the pod sends from: those without an interface, on the interface of the attachment, or
// on another one inside the container. Addresses of host interfaces are not the pod's.
func (r *Result) Addresses(ifName, netns string) []netip.Addr {
	var out []netip.Addr
	for _, ip := range r.current.IPs {
		if ip == nil {
			continue
		}
		addr, ok := netip.AddrFromSlice(ip.Address.IP)
		if ok && r.inPod(ip.Interface, ifName, netns) {
			out = append(out, addr)
		}
	}
	return attachment.Normalize(out)
}

// Gateways are where the pod sends what is not on its link.
func (r *Result) Gateways() []netip.Addr {
	var all []netip.Addr
	add := func(ip net.IP) {
		if addr, ok := netip.AddrFromSlice(ip); ok {
			all = append(all, addr)
		}
	}
	for _, ip := range r.current.IPs {
		if ip != nil {
			add(ip.Gateway)
		}
	}
	for _, route := range r.current.Routes {
		if route != nil {
			add(route.GW)
		}
	}
	return attachment.Normalize(all)
}

// inPod follows what main plugins really print: kindnet leaves the sandbox of the pod's interface empty, and some name no
// interface at all.
func (r *Result) inPod(index *int, ifName, netns string) bool {
	if index == nil || *index < 0 || *index >= len(r.current.Interfaces) || r.current.Interfaces[*index] == nil {
		return true
	}
	iface := r.current.Interfaces[*index]
	return iface.Name == ifName || (iface.Sandbox != "" && iface.Sandbox == netns)
}

// Sandbox returns the network namespace that the result names for an interface, empty where it names none.
func (r *Result) Sandbox(ifName string) string {
	for _, iface := range r.current.Interfaces {
		if iface != nil && iface.Name == ifName && iface.Sandbox != "" {
			return iface.Sandbox
		}
	}
	return ""
}
