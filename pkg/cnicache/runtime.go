package cnicache

import "github.com/ip-masq/ip-masq-cni/pkg/attachment"

// Attachments lists the attachments that should be behind the policy, and the ids of all that the runtime knows.
func (c Cache) Attachments() (ours []attachment.Attachment, all map[attachment.ID]bool, err error) {
	entries, err := c.List()
	if err != nil {
		return nil, nil, err
	}
	all = make(map[attachment.ID]bool, len(entries))
	for _, entry := range entries {
		all[entry.ID()] = true
		if entry.Ours {
			ours = append(ours, entry.Attachment)
		}
	}
	return ours, all, nil
}
