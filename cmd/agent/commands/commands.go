package commands

import "github.com/spf13/cobra"

// commands are all of the agent's, one constructor and one file each.
func commands(p *paths) []*cobra.Command {
	return []*cobra.Command{
		newInitCommand(p),
		newSelftestCommand(),
		newPairCommand(p),
		newRunCommand(p),
		newCheckCommand(p),
		newReloadCommand(p),
		newStatusCommand(p),
		newTopCommand(p),
		newBansCommand(p),
		newBanCommand(p),
		newUnbanCommand(p),
		newWithdrawCommand(p),
		newExplainCommand(p),
		newHistoryCommand(p),
		newEventsCommand(p),
		newReportCommand(p),
		newTopicsCommand(p),
		newPeersCommand(p),
		newAllowCommand(p),
		newGuestsCommand(p),
		newNotifyCommand(p),
		newBouncersCommand(p), newCrowdSecCommand(p),
		newListsCommand(p), newFetchCommand(p),
		newHoldCommand(p),
		newPageCommand(p),
		newUndoCommand(p),
		newPolicyCommand(p),
		newDoctorCommand(p),
		newFeedsCommand(p),
		newTapCommand(p),
		newNetworkCommand(p),
		newKeyCommand(p),
		newFirewallCommand(p),
		newDenylistCommand(p),
		newLivepeerCommand(p),
		newFilterCommand(p),
		newExplainLineCommand(p),
		newReplayCommand(p),
		newImportCommand(p),
		newSimulateCommand(p),
	}
}
