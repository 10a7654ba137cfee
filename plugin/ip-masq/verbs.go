package main

import (
	"encoding/json"
	"os"
	"time"

	cnins "github.com/containernetworking/cni/pkg/ns"
	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"

	"github.com/ip-masq/ip-masq-cni/pkg/attachment"
	"github.com/ip-masq/ip-masq-cni/pkg/cniresult"
)

// How long a verb may take. The bound for all is 15 s, of which ADD keeps two for taking itself back, and one more each for
// programs that do not die at once. STATUS is polled.
const (
	verbTime   = 10 * time.Second
	statusTime = 900 * time.Millisecond
)

// add puts the pod behind the policy, unless network or pod opted out, and passes the previous result on.
func add(args *skel.CmdArgs) error {
	conf, previous, err := forPod(args)
	if err != nil {
		return err
	}
	if err := conf.node().Attach(within(verbTime), attachmentOf(conf, previous, args)); err != nil {
		return cniError(err)
	}
	return printResult(os.Stdout, previous, conf.CNIVersion)
}

// del takes exactly this attachment out, whatever else is missing.
func del(args *skel.CmdArgs) error {
	conf, err := parseConf(args.StdinData)
	if err != nil {
		return err
	}
	ctx := within(verbTime)
	return cniError(conf.node().Detach(ctx, ownerOf(conf, args)))
}

// check verifies what add promised, and for a pod that opted out that there is nothing to verify.
func check(args *skel.CmdArgs) error {
	conf, previous, err := forPod(args)
	if err != nil {
		return err
	}
	ctx := within(verbTime)
	return cniError(conf.node().Check(ctx, attachmentOf(conf, previous, args)))
}

// gc removes this network's attachments that the runtime no longer knows.
func gc(args *skel.CmdArgs) error {
	conf, err := parseConf(args.StdinData)
	if err != nil {
		return err
	}
	valid, known, err := validAttachments(args.StdinData)
	if err != nil {
		return types.NewError(types.ErrDecodingFailure, "the list of valid attachments cannot be decoded", err.Error())
	}
	ctx := within(verbTime)
	return gcError(conf.node().GC(ctx, conf.Name, valid, known))
}

// status says whether an ADD would work.
func status(args *skel.CmdArgs) error {
	conf, err := parseConf(args.StdinData)
	if err == nil {
		err = conf.validate()
	}
	if err != nil {
		return err
	}
	ctx := within(statusTime)
	return statusError(conf.node().Status(ctx))
}

// forPod decodes what ADD and CHECK need, and refuses a namespace that is the plugin's own before anything is written: the library
// asks only afterwards.
func forPod(args *skel.CmdArgs) (*netConf, *cniresult.Result, error) {
	conf, err := parseConf(args.StdinData)
	if err == nil {
		err = conf.validate()
	}
	if err != nil {
		return nil, nil, err
	}
	warnOfUnknownKeys(logger(), args.StdinData)
	previous, err := parsePrevious(conf)
	if err != nil {
		return nil, nil, err
	}
	return conf, previous, notOwnNetNS(args)
}

func notOwnNetNS(args *skel.CmdArgs) error {
	if args.NetnsOverride != "" {
		return nil
	}
	own, err := cnins.CheckNetNS(args.Netns)
	if err != nil {
		return err
	}
	if own {
		return types.NewError(types.ErrInvalidNetNS, "CNI_NETNS is the plugin's own network namespace", args.Netns)
	}
	return nil
}

func ownerOf(conf *netConf, args *skel.CmdArgs) attachment.Owner {
	return attachment.Owner{Network: conf.Name, ContainerID: args.ContainerID, IfName: args.IfName}
}

func attachmentOf(conf *netConf, previous *cniresult.Result, args *skel.CmdArgs) attachment.Attachment {
	return attachment.Attachment{
		Owner:     ownerOf(conf, args),
		Pod:       attachment.ParsePod(args.Args),
		NetNS:     attachment.StatNetNS(args.Netns),
		Addresses: previous.Addresses(args.IfName, args.Netns),
		Gateways:  previous.Gateways(),
		Asked:     conf.asked(),
	}
}

// validAttachments reads the list raw, because the library's type cannot tell null, which says that none is valid (CRI-O sends
// it for a network without pods), from a missing key, which says nothing. The key without "valid-" is what libcni 1.2 sent.
func validAttachments(stdin []byte) (valid []attachment.Owner, known bool, err error) {
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(stdin, &keys); err != nil {
		return nil, false, err
	}
	list, known := keys["cni.dev/valid-attachments"]
	if !known {
		list, known = keys["cni.dev/attachments"]
	}
	if !known {
		return nil, false, nil
	}
	var attachments []types.GCAttachment
	if err := json.Unmarshal(list, &attachments); err != nil {
		return nil, true, err
	}
	for _, a := range attachments {
		valid = append(valid, attachment.Owner{ContainerID: a.ContainerID, IfName: a.IfName})
	}
	return valid, true, nil
}
