// Package cnicache reads what the container runtime itself knows of attachments: the result cache that libcni keeps, and the
// conflists that say whose pods are masqueraded.
//
// It refuses to write there, and to take a file that it cannot read for one that is not there: runtimes rewrite theirs in
// place, so a half-written one is skipped and read again the next time.
package cnicache

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/cniresult"
	"github.com/ip-masq/ip-masq-cni/pkg/plainfile"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

// Cache is the pair of directories.
type Cache struct {
	Dir     string // holds results/
	ConfDir string
}

// Entry is one cached attachment.
type Entry struct {
	attachment.Attachment
	// Listed says that the plugin's word counts: its network names the plugin now, or did when the pod was attached.
	Listed bool
}

// Masqueraded reports whether the pod is to be: the plugin is in its list, and neither network nor pod opted out.
func (e Entry) Masqueraded(allowed policy.PodAnnotations) bool {
	return e.Listed && len(e.Addresses) > 0 && !e.OptedOut(allowed)
}

// OptedOut reports whether network or pod asked to keep the pod's address. An annotation that cannot be understood does not count: the
// plugin refuses such a pod, so it was attached before the plugin was in its list.
func (e Entry) OptedOut(allowed policy.PodAnnotations) bool {
	_, optedOut, _ := e.Decide(allowed)
	return optedOut
}

// Stamp changes whenever List might return something else than before. It looks at every file and not just at the directories:
// libcni writes in place, so that a file is completed, and a conflist edited, without a change of its directory.
func (c Cache) Stamp() string {
	var b strings.Builder
	for _, dir := range append(c.Dirs(), c.ConfDir) {
		files, err := os.ReadDir(dir)
		fmt.Fprintln(&b, len(files), err)
		for _, file := range files {
			if info, err := os.Stat(filepath.Join(dir, file.Name())); err == nil {
				fmt.Fprintln(&b, file.Name(), info.Size(), info.ModTime().UnixNano())
			}
		}
	}
	return b.String()
}

// Listing is what the cache holds: the entries that can be read, and the names of the files that cannot.
type Listing struct {
	Entries []Entry
	Unread  []string
}

// List reads the cache, entries of both formats. The error is fs.ErrNotExist where there is no cache: then nothing is known of
// any attachment, which is not the same as that there are none.
func (c Cache) List() (list Listing, err error) {
	networks := c.networks()
	for i, dir := range c.Dirs() {
		if err := list.read(dir, networks); err != nil && (i == 0 || !errors.Is(err, fs.ErrNotExist)) {
			return Listing{}, fmt.Errorf("read the result cache: %w", err)
		}
	}
	return list, nil
}

func (l *Listing) read(dir string, networks map[string]network) error {
	files, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, file := range files {
		if file.IsDir() {
			continue
		}
		data, err := plainfile.Read(filepath.Join(dir, file.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue // deleted while we read the directory
		}
		if err != nil {
			return err
		}
		if entry, ok := parse(file.Name(), data, networks); ok {
			l.Entries = append(l.Entries, entry)
		} else {
			l.Unread = append(l.Unread, file.Name())
		}
	}
	return nil
}

func (c Cache) resultsDir() string { return filepath.Join(c.Dir, "results") }

// cached is the format since libcni 0.7 (libcni/api.go). Before that, a file was the result alone.
type cached struct {
	Kind           string                     `json:"kind"`
	ContainerID    string                     `json:"containerId"`
	Config         []byte                     `json:"config"`
	IfName         string                     `json:"ifName"`
	NetworkName    string                     `json:"networkName"`
	NetNS          string                     `json:"netns"`
	CNIArgs        [][2]string                `json:"cniArgs"`
	CapabilityArgs map[string]json.RawMessage `json:"capabilityArgs"`
	Result         json.RawMessage            `json:"result"`
}

const kindV1 = "cniCacheV1"

func parse(name string, data []byte, networks map[string]network) (Entry, bool) {
	var c cached
	if json.Unmarshal(data, &c) != nil {
		return Entry{}, false
	}
	if c.Kind != kindV1 {
		owner, ok := ownerOf(name, networks)
		if !ok {
			return Entry{}, false
		}
		return entryOf(owner, "", data, networks[owner.Network])
	}
	owner := attachment.Owner{Network: c.NetworkName, ContainerID: c.ContainerID, IfName: c.IfName}
	entry, ok := entryOf(owner, c.NetNS, c.Result, c.network(networks))
	for _, arg := range c.CNIArgs {
		entry.Pod.Take(arg[0], arg[1])
	}
	_ = json.Unmarshal(c.CapabilityArgs[attachment.PodAnnotations], &entry.Asked.Annotations) // what is none says nothing
	return entry, ok
}

// entryOf makes an entry of a pod in a network as far as the plugin is concerned.
func entryOf(owner attachment.Owner, netns string, raw []byte, in network) (Entry, bool) {
	result, err := cniresult.Parse(raw, "0.4.0")
	if err != nil || owner.ContainerID == "" || owner.IfName == "" {
		return Entry{}, false
	}
	if netns == "" {
		netns = result.Sandbox(owner.IfName)
	}
	a := attachment.Attachment{Owner: owner, NetNS: attachment.StatNetNS(netns), Addresses: result.Addresses(owner.IfName, netns), Gateways: result.Gateways()}
	a.Asked.Network = in.masquerade
	return Entry{Attachment: a, Listed: in.listed}, true
}

// ownerOf takes an old file's name apart, NETWORK-CONTAINER-INTERFACE. All three may hold dashes, so the network must be one
// that a conflist names, the longest that fits, and the interface is what follows the last dash.
func ownerOf(name string, networks map[string]network) (owner attachment.Owner, ok bool) {
	for candidate := range networks {
		rest, fits := strings.CutPrefix(name, candidate+"-")
		i := strings.LastIndex(rest, "-")
		if fits && i > 0 && len(candidate) > len(owner.Network) {
			owner, ok = attachment.Owner{Network: candidate, ContainerID: rest[:i], IfName: rest[i+1:]}, true
		}
	}
	return owner, ok
}

// owners are all that a file's name can mean, whatever its format: libcni never changed the names.
func owners(name string) []attachment.Owner {
	var all []attachment.Owner
	parts := strings.Split(name, "-")
	for i := 1; i < len(parts)-1; i++ {
		for j := i + 1; j < len(parts); j++ {
			all = append(all, attachment.Owner{
				Network: strings.Join(parts[:i], "-"), ContainerID: strings.Join(parts[i:j], "-"), IfName: strings.Join(parts[j:], "-"),
			})
		}
	}
	return all
}

// network is the pod's network as it is now, or else as it was when the pod was attached.
func (c cached) network(networks map[string]network) network {
	if now, ok := networks[c.NetworkName]; ok {
		return now
	}
	then, _ := parseNetwork(c.Config)
	return then
}
