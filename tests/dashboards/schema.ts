// What a dashboard of ours may be: Grafana's own types, as far as JSON can satisfy them.
import type { Dashboard, Panel, RowPanel } from '@grafana/schema';
import type { Options as StatOptions } from '@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen';
import type {
  FieldConfig as StateTimelineFieldConfig,
  Options as StateTimelineOptions,
} from '@grafana/schema/dist/esm/raw/composable/statetimeline/panelcfg/x/StateTimelinePanelCfg_types.gen';
import type {
  FieldConfig as TimeSeriesFieldConfig,
  Options as TimeSeriesOptions,
} from '@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen';

// An enum's member is written as its value.
type Json<T> = T extends string
  ? `${T}`
  : T extends number
    ? T | (`${T}` extends `${infer N extends number}` ? N : never)
    : T extends boolean | null | undefined
      ? T
      : T extends (infer U)[]
        ? Json<U>[]
        : T extends object
          ? { [K in keyof T]: Json<T[K]> }
          : T;

// Every panel says what it shows, and in which unit.
type Of<Type extends string, Options, Custom> = Omit<
  Json<Panel>,
  'type' | 'title' | 'description' | 'options' | 'fieldConfig' | 'targets'
> & {
  type: Type;
  title: string;
  description: string;
  options: Json<Options>;
  fieldConfig: {
    defaults: Omit<Json<NonNullable<Panel['fieldConfig']>['defaults']>, 'custom' | 'unit' | 'thresholds'> & {
      unit: string;
      custom?: Json<Custom>;
      // The first threshold has no value: it is minus infinity, which JSON cannot say.
      thresholds?: { mode: 'absolute' | 'percentage'; steps: { color: string; value: number | null }[] };
    };
    overrides: Json<NonNullable<Panel['fieldConfig']>['overrides']>;
  };
  targets: PrometheusTarget[];
};

interface PrometheusTarget {
  refId: string;
  datasource: { type: 'prometheus'; uid: '${datasource}' };
  expr: string;
  legendFormat: string;
  editorMode: 'code';
  range: boolean;
  instant: boolean;
}

type OurPanel =
  | Of<'timeseries', TimeSeriesOptions, TimeSeriesFieldConfig>
  | Of<'stat', StatOptions, never>
  | Of<'state-timeline', StateTimelineOptions, StateTimelineFieldConfig>
  | Json<RowPanel>;

// An annotation of a plugin's carries that plugin's own fields.
type Annotation = Json<NonNullable<NonNullable<Dashboard['annotations']>['list']>[number]> & {
  expr?: string;
  titleFormat?: string;
  textFormat?: string;
  step?: string;
  useValueForTime?: string;
};

export type OurDashboard = Omit<Json<Dashboard>, 'panels' | 'annotations' | 'schemaVersion'> & {
  schemaVersion: 42;
  panels: OurPanel[];
  annotations: { list: Annotation[] };
};
