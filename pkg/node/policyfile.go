package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ip-masq/ip-masq-cni/pkg/atomicfile"
	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/plainfile"
	"github.com/ip-masq/ip-masq-cni/pkg/policy"
)

const policyFile = "policy.json"

// policyDocument is the content of the file. The settings stand before the prefixes, so that they can be read alone.
type policyDocument struct {
	Version int `json:"version"`
	policy.Policy
}

// PolicyFile is where the last good policy is kept.
func (n *Node) PolicyFile() string { return n.policyPath() }

func (n *Node) policyPath() string { return filepath.Join(n.dataDir, policyFile) }

// SavePolicy persists the last good policy, so that after a reboot the first ADD puts it in place before the agent is up.
func (n *Node) SavePolicy(p policy.Policy) error {
	data, err := json.Marshal(policyDocument{attachment.FormatVersion, p})
	if err != nil {
		return fmt.Errorf("encode policy: %w", err)
	}
	data = append(data, '\n')
	if err := atomicfile.WriteSync(n.policyPath(), data, 0o644); err != nil {
		return err
	}
	n.persisted = persistedPolicy{policy: &p, sum: sumOf(data)}
	return nil
}

// LoadPolicy reads the persisted policy; the error is fs.ErrNotExist where there is none.
func (n *Node) LoadPolicy() (policy.Policy, error) {
	return n.decodePolicy(plainfile.Read(n.policyPath()))
}

func (n *Node) decodePolicy(data []byte, err error) (policy.Policy, error) {
	if err != nil {
		return policy.Policy{}, fmt.Errorf("read persisted policy: %w", err)
	}
	var document policyDocument
	err = json.Unmarshal(data, &document)
	if versionErr := attachment.CheckFormat(document.Version); versionErr != nil {
		err = versionErr // a newer format explains whatever else could not be read
	}
	if err == nil {
		err = document.Validate()
	}
	if err != nil {
		return policy.Policy{}, fmt.Errorf("persisted policy %s: %w", n.policyPath(), err)
	}
	return document.Policy, nil
}

// PolicySaved is when the policy was written down, false where what is written down is another one.
func (n *Node) PolicySaved(p policy.Policy) (time.Time, bool) {
	info, err := os.Stat(n.policyPath())
	if err != nil {
		return time.Time{}, false
	}
	saved, err := n.LoadPolicy()
	return info.ModTime(), err == nil && saved.Equal(p)
}

// policy returns the persisted policy, or the defaults where there is none that can be used.
func (n *Node) policy() policy.Policy {
	p, err := n.LoadPolicy()
	if err == nil {
		return p
	}
	if !errors.Is(err, fs.ErrNotExist) {
		n.log.Warn("the persisted policy cannot be used: the default policy is used instead", "error", err)
	}
	return policy.Default(n.unpersistedSettings())
}

// settings returns the persisted policy's settings without decoding its prefixes, of which there may be a hundred thousand:
// this runs for every pod.
func (n *Node) settings() policy.Settings {
	file, err := plainfile.Open(n.policyPath(), unix.O_RDONLY, 0)
	if err != nil {
		return n.unpersistedSettings()
	}
	defer func() { _ = file.Close() }()
	if s, ok := leadingSettings(json.NewDecoder(file)); ok {
		return s
	}
	return n.policy().Settings
}

// unpersistedSettings are in force where no agent has persisted a policy: the caller's own, with the chain that is in use.
func (n *Node) unpersistedSettings() policy.Settings {
	s := n.defaults
	if d, ok := n.Decision(); ok && d.Chain != "" {
		s.Chain = d.Chain
	}
	return s
}

// leadingSettings reads the settings when nothing but the version stands before them.
func leadingSettings(decoder *json.Decoder) (s policy.Settings, ok bool) {
	if start, err := decoder.Token(); err != nil || start != json.Delim('{') {
		return s, false
	}
	for {
		key, err := decoder.Token()
		var version int
		switch {
		case err != nil:
			return s, false
		case key == "version":
			if decoder.Decode(&version) != nil || attachment.CheckFormat(version) != nil {
				return s, false
			}
		case key == "settings":
			return s, decoder.Decode(&s) == nil && s.Validate() == nil
		default:
			return s, false
		}
	}
}

// persistedPolicy is the policy file as this process last read or wrote it. Decoding many prefixes takes longer than asking whether
// the file changed, and a hundred times as long as summing its content up, where its times cannot tell yet.
type persistedPolicy struct {
	policy *policy.Policy // nil: there is none that can be used
	sum    uint64
	file   fileID
}

var seed = maphash.MakeSeed()

func sumOf(data []byte) uint64 { return maphash.Bytes(seed, data) }

// readPersisted returns the policy that is persisted now, nil where there is none that can be used. Others write the file too:
// a sync without the daemon, or an administrator.
func (n *Node) readPersisted() *policy.Policy {
	now := identify(n.policyPath())
	if now.sure && now == n.persisted.file {
		return n.persisted.policy
	}
	data, err := plainfile.Read(n.policyPath())
	sum := sumOf(data)
	if err == nil && n.persisted.policy != nil && n.persisted.sum == sum {
		n.persisted.file = now
		return n.persisted.policy
	}
	n.persisted = persistedPolicy{file: now, sum: sum}
	if p, err := n.decodePolicy(data, err); err == nil {
		n.persisted.policy = &p
	} else if !errors.Is(err, fs.ErrNotExist) {
		n.log.Warn("the persisted policy cannot be used and will be replaced", "error", err)
	}
	return n.persisted.policy
}

// fileID tells a file from what others put in its place or write into it.
type fileID struct {
	inode          uint64
	size           int64
	changed, wrote time.Time
	sure           bool // old enough that a later change shows
}

func identify(path string) fileID {
	info, err := os.Stat(path)
	if err != nil {
		return fileID{sure: true}
	}
	id := fileID{size: info.Size(), wrote: info.ModTime()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		id.inode, id.changed = st.Ino, time.Unix(st.Ctim.Unix())
	}
	id.sure = time.Since(id.changed) > attachment.RacyTime
	return id
}
